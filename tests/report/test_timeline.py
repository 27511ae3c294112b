"""The line of steps: what was saved and what is left is seen at a glance, however long the run."""

from __future__ import annotations

import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from pytest_ckpt.records.verdict import Timeline
from pytest_ckpt.report import timeline


@st.composite
def timelines(draw: st.DrawFn, longest: int = 100_000) -> Timeline:
    """Return a job's steps, some of them saved, and some of those kept."""
    steps = draw(st.integers(0, longest))
    saved = draw(st.sets(st.integers(0, steps), max_size=30))
    kept = draw(st.sets(st.sampled_from(sorted(saved)))) if saved else set()
    return Timeline(steps=steps, saved=tuple(sorted(saved)), kept=tuple(sorted(kept)))


WIDTHS: Final = st.integers(40, 120)


@given(timelines(), WIDTHS)
def test_the_line_is_never_wider_than_asked(steps: Timeline, width: int) -> None:
    """It fits a terminal of 40 columns or more."""
    assert len(timeline.draw(steps, width)) <= width


@given(timelines(), WIDTHS)
def test_the_last_step_ends_the_line(steps: Timeline, width: int) -> None:
    """Whatever is left out, the reader sees how far training went and whether that was saved."""
    if steps.steps in steps.kept:
        last = f"[{steps.steps}]"
    elif steps.steps in steps.saved:
        last = f"<{steps.steps}>"
    else:
        last = f"({steps.steps})" if steps.steps else "no step was trained"

    assert timeline.draw(steps, width).endswith(last)


@given(timelines(), WIDTHS)
def test_every_step_that_is_shown_bears_its_mark(steps: Timeline, width: int) -> None:
    """A number in square brackets is on disk, one in angle brackets was deleted again, any other was not saved."""
    line = timeline.draw(steps, width)

    assert set(re.findall(r"\[(\d+)\]", line)) <= {str(step) for step in steps.kept}
    assert set(re.findall(r"<(\d+)>", line)) <= {str(step) for step in steps.saved if step not in steps.kept}
    assert not {int(step) for step in re.findall(r"(?<![\[<\d])\d+(?![\]>\d])", line)} & set(steps.saved)


@given(timelines(), WIDTHS)
def test_saves_that_are_left_out_leave_a_trace(steps: Timeline, width: int) -> None:
    """If a checkpoint is on disk or was deleted again, there is a mark of that kind."""
    line = timeline.draw(steps, width)

    assert bool(steps.kept) == ("[" in line)
    assert bool(set(steps.saved) - set(steps.kept)) == ("<" in line)


@given(timelines(longest=12))
def test_a_short_job_is_shown_step_by_step(steps: Timeline) -> None:
    """With a dozen steps nothing has to be left out at 80 columns."""
    numbers = [int(number) for number in re.findall(r"\d+", timeline.draw(steps, 80))]

    assert [*({0} & set(steps.saved)), *range(1, steps.steps + 1)] == numbers


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (Timeline(steps=10, saved=(4, 8), kept=(4, 8)), snapshot("1 2 3 [4] 5 6 7 [8] 9 (10)")),
        (Timeline(steps=10, saved=(2, 4, 6, 8, 10), kept=(8, 10)), snapshot("1 <2> 3 <4> 5 <6> 7 [8] 9 [10]")),
        (Timeline(steps=0), snapshot("no step was trained")),
        (Timeline(steps=0, saved=(0,), kept=(0,)), snapshot("[0]")),
        (Timeline(steps=1578), snapshot("1 .. (1578)")),
        (
            Timeline(steps=1578, saved=(400, 800, 1200, 1500), kept=(1200, 1500)),
            snapshot("1 .. <400> .. <800> .. [1200] .. [1500] .. (1578)"),
        ),
        (
            Timeline(steps=400, saved=tuple(range(4, 401, 4)), kept=tuple(range(4, 401, 4))),
            snapshot("1 .. [4] .. [8] .. [12] .. [16] [..] [384] .. [388] .. [392] .. [396] .. [400]"),
        ),
        (
            Timeline(steps=1_000_000, saved=tuple(range(0, 999_000, 1000)), kept=(998_000,)),
            snapshot("<0> 1 .. <1000> <..> <995000> .. <996000> .. <997000> .. [998000] .. (1000000)"),
        ),
    ],
)
def test_jobs_short_and_long(steps: Timeline, expected: str) -> None:
    """From a dozen steps to a million, one line shows the saves."""
    assert expected == timeline.draw(steps)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (Timeline(steps=10, saved=(4, 8), kept=(4, 8)), "9 to 10"),
        (Timeline(steps=9, saved=(8,), kept=(8,)), "9"),
        (Timeline(steps=8, saved=(8,), kept=(8,)), ""),
        (Timeline(steps=8, saved=(8,)), "1 to 8"),
        (Timeline(steps=0), ""),
    ],
)
def test_lost_steps_are_those_after_the_newest_checkpoint_on_disk(steps: Timeline, expected: str) -> None:
    """What a resume would have to train again; a checkpoint that was deleted again does not help."""
    assert expected == timeline.lost_steps(steps)


def test_the_legend_explains_the_marks_that_occur() -> None:
    """No mark is explained that the line does not have."""
    assert snapshot("[n] on disk  <n> deleted again  (n) last step, lost: 9 to 10") == timeline.legend(
        Timeline(steps=10, saved=(4, 8), kept=(8,))
    )
    assert snapshot("[n] on disk  <n> deleted again  lost: 9 to 10") == timeline.legend(
        Timeline(steps=10, saved=(8, 10), kept=(8,))
    )
    assert snapshot("[n] on disk") == timeline.legend(Timeline(steps=8, saved=(4, 8), kept=(4, 8)))


def test_one_key_serves_several_jobs() -> None:
    """It explains the marks of all of them."""
    jobs = [Timeline(steps=8, saved=(8,), kept=(8,)), Timeline(steps=9, saved=(8,))]

    assert ["[n] on disk", "<n> deleted again", "(n) last step"] == timeline.key(jobs)
