"""A property test of a job finds the smallest schedule that breaks it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plugin.conftest import Sessions

PLAIN = """
    from functools import partial
    from hypothesis import given, settings, strategies as st
    from pytest_ckpt.strategies import for_jobs

    @settings(for_jobs, max_examples=10, derandomize=True)
    @given(last=st.integers(1, 9), every=st.integers(1, 5))
    def test_any_schedule(ckpt_run, last, every):
        run = ckpt_run(partial(train, last=last, every=every, save_last=SAVES_LAST))
        assert last in run.saved_steps
"""
REHEARSED = """
    from hypothesis import given, settings, strategies as st
    from jobs import hf
    from pytest_ckpt.strategies import for_jobs, schedules

    class OnlyBetween(hf.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step % args.save_steps:
                control.should_save = False

    few = {"dataset_len": 9, "batch_size": 1, "accumulation": 1, "epochs": 1, "save_total_limit": st.none()}

    @settings(for_jobs, max_examples=5, derandomize=True)
    @given(schedule=schedules(save_strategy="steps", max_steps=st.integers(1, 4), save_steps=st.integers(1, 3), **few))
    def test_any_schedule(ckpt_run, schedule):
        def train(job):
            trainer = hf.trainer(job, callbacks=CALLBACKS, **schedule.training_arguments())
            job.rehearse(trainer)

        run = ckpt_run(train)
        assert run.last_step in run.saved_steps
"""


def test_a_loop_that_forgets_its_last_step(sessions: Sessions) -> None:
    """One step, and a save that would come with the second, are enough."""
    sessions.write(PLAIN.replace("SAVES_LAST", "False"))
    result = sessions.apart("-p", "hypothesispytest", timeout=300)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*last=1,", "*every=2,"])


def test_a_loop_that_saves_its_last_step(sessions: Sessions) -> None:
    """No schedule breaks it."""
    sessions.write(PLAIN.replace("SAVES_LAST", "True"))
    result = sessions.apart("-p", "hypothesispytest", timeout=300)
    result.assert_outcomes(passed=1)


def test_a_rehearsal_of_any_schedule(sessions: Sessions) -> None:
    """A callback that takes back the save of the last step is found out, with the smallest schedule that shows it."""
    sessions.write(REHEARSED.replace("CALLBACKS", "[OnlyBetween()]"))
    result = sessions.apart("-p", "hypothesispytest", timeout=300)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Schedule(dataset_len=9,*max_steps=1,*save_steps=2,*"])
    sessions.write(REHEARSED.replace("CALLBACKS", "[]"))
    sessions.apart("-p", "hypothesispytest", timeout=300).assert_outcomes(passed=1)
