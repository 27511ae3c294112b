"""Ticks of optimizers become steps of a job."""

from __future__ import annotations

from typing import Final

import pytest

from pytest_ckpt.runs.clock import StepClock

#: What happens in a loop (`f`: forward, a digit: that optimizer ticks, `s`: a save, `e`: the end of a step is told), and the
#: steps it makes.
LOOPS: Final = {
    "one optimizer": ("f0f0f0", 3),
    "accumulated gradients": ("ff0ff0", 2),
    "two optimizers after one forward": ("f01f01", 2),
    "a GAN": ("f0f1f0f1", 2),
    "an optimizer in backward, three parameters": ("f012f012", 2),
    "several critic updates per generator update": ("f0f0f1f0f0f1", 4),
    "parts trained in turn, saved after each turn": ("f0f0sf1f1s", 4),
    "parts trained in turn, saved in the end": ("f0f1f1s", 2),
    "a GAN that saves after each step": ("f0f1sf0f1s", 2),
    "a GAN that saves within its steps": ("f0fs1f0fs1", 2),
    "two optimizers after one forward, a save in between": ("f0s1f0s1", 2),
    "no forward is ever seen": ("000", 3),
    "two optimizers, no forward": ("0101", 2),
    "told, as by a framework": ("f0ef0e", 2),
    "told, with an update that was skipped": ("f0efef0e", 3),
    "told, with several ticks of one optimizer in a step": ("f0f0ef0f0e", 2),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_makes_its_steps(loop: str) -> None:
    """Whatever the kind of loop, a step is what its author would call one."""
    happenings, steps = LOOPS[loop]
    clock = StepClock()
    if "e" in happenings:
        clock.expect_told()
    for what in happenings:
        if what == "f":
            clock.forward()
        elif what == "s":
            clock.save()
        elif what == "e":
            clock.end_step()
        else:
            clock.tick(int(what))
    assert steps == clock.step


def test_the_first_tick_of_a_step_is_known_beforehand() -> None:
    """The second optimizer of a step does not begin one; the first one's next tick after a forward pass does."""
    clock = StepClock()
    clock.forward()
    assert clock.begins_step(0)
    clock.tick(0)
    assert not clock.begins_step(1)
    clock.tick(1)
    clock.forward()
    assert clock.begins_step(0)
