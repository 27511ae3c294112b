"""With --pdb and --trace the job is called in pytest's own process first, where a debugger can stop in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from plugin.conftest import QUIET

if TYPE_CHECKING:
    import pytest

    from plugin.conftest import Sessions


def debug(sessions: Sessions, typed: str, *arguments: str) -> pytest.RunResult:
    """Run pytest in a process of its own, and type something when the debugger asks."""
    command = [sys.executable, "-m", "pytest", *QUIET, "--ckpt-contract", *arguments]
    return sessions.pytester.run(*command, timeout=60, stdin=typed.encode())


def test_the_debugger_stops_where_the_job_fails(sessions: Sessions) -> None:
    """--pdb shows the frame of the test, with its variables."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job):
            number = 41
            raise ValueError(ckpt_job.is_baseline)
        """
    )
    result = debug(sessions, "p number + 1\nq\n", "--pdb")
    result.stdout.fnmatch_lines(["E       ValueError: True", "*test_jobs.py(8)test_job()", "(Pdb) 42"])


def test_contracts_are_judged_after_the_debugger_was_through(sessions: Sessions) -> None:
    """What the job wrote here is gone by then, and breakpoints are passed over."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(2)
        def test_job(ckpt_job):
            kept = list(ckpt_job.path.iterdir())
            breakpoint()
            train(ckpt_job)
        """
    )
    result = debug(sessions, "p len(kept) + 40\nc\n", "--pdb")
    result.stdout.fnmatch_lines(["*test_jobs.py(*)test_job()", "(Pdb) 40"])
    result.assert_outcomes(passed=2)


def test_stepping_through_the_job(sessions: Sessions) -> None:
    """--trace stops at the first line of the test."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job):
            first = 1
            train(ckpt_job)
        """
    )
    result = debug(sessions, "n\np first + 41\nc\n", "--trace")
    result.stdout.fnmatch_lines(["*test_jobs.py(7)test_job()", "*test_jobs.py(8)test_job()", "(Pdb) 42"])
    result.assert_outcomes(passed=1)


def test_a_breakpoint_without_the_flag(sessions: Sessions) -> None:
    """The job's process has no terminal: the message says which flag there is for that."""
    sessions.write(
        """
        import pdb

        @pytest.mark.ckpt_final_step
        @pytest.mark.parametrize("module", [pytest, pdb, None])
        def test_job(ckpt_job, module):
            module.set_trace() if module else breakpoint()
        """
    )
    result = sessions()
    result.assert_outcomes(errors=3)
    text = "the job failed before its first optimizer step: *: a debugger has no terminal in the process of a job; pytest --pdb *"
    result.stdout.fnmatch_lines([text, text, text])


def test_a_debugger_stops_in_the_smallest_combination_of_a_sweep(sessions: Sessions) -> None:
    """It is called once in pytest's own process."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(last=[4, 6])
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, last):
            breakpoint()
            train(ckpt_job, last=last)
        """
    )
    result = debug(sessions, "p last + 36\nc\n", "--pdb")
    result.stdout.fnmatch_lines(["*test_jobs.py(*)test_job()", "(Pdb) 40"])
    result.assert_outcomes(passed=1)
