"""`ckpt_run` runs a job, and resumes it by step and by path, for tests that assert by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inline_snapshot import snapshot

if TYPE_CHECKING:
    import pytest

    from plugin.conftest import Sessions

HOLDS: Final = """
    def test_by_hand(ckpt_run):
        run = ckpt_run(train)
        assert (4, (2, 4)) == (run.last_step, run.saved_steps)
        assert ["step_2.pt", "step_4.pt"] == [checkpoint.path for checkpoint in run.checkpoints]
        by_step = ckpt_run.resume(run, step=2)
        assert [3, 4] == [step.index + 2 for step in by_step.steps]
        by_path = ckpt_run.resume(run, checkpoint="step_2.pt", seeds="baseline")
        assert run.steps[-1].state["update"] == by_step.steps[-1].state["update"] == by_path.steps[-1].state["update"]

    def test_another(ckpt_run):
        first, second = ckpt_run(train), ckpt_run(lambda job: train(job, last=6))
        assert (4, 6) == (first.last_step, second.last_step)
        assert 4 == ckpt_run.resume(second, step=2).last_step
        assert 2 == ckpt_run.resume(first, step=2).last_step
"""


def message_of(result: pytest.RunResult, start: str) -> str:
    """Return the error message that begins like that."""
    lines = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E  ")]
    return next(line for line in lines if start in line)


def test_a_job_is_run_and_resumed(sessions: Sessions) -> None:
    """It needs no contract, and works where contracts are switched off; no evidence stays behind."""
    sessions.write(HOLDS)
    base = sessions.pytester.path / "base"
    sessions.without_contracts("--basetemp", str(base)).assert_outcomes(passed=2)
    assert [] == list(base.rglob("*-evidence"))
    sessions.without_contracts("--basetemp", str(base), "--ckpt-keep").assert_outcomes(passed=2)
    assert 3 == len(list(base.rglob("*-evidence")))


def test_evidence_of_a_test_that_fails_is_removed_too(sessions: Sessions) -> None:
    """Records are in memory; the job's own directory stays for a look."""
    sessions.write(
        """
        def test_by_hand(ckpt_run):
            run = ckpt_run(train)
            assert run.last_step == 5
        """
    )
    base = sessions.pytester.path / "base"
    sessions.without_contracts("--basetemp", str(base)).assert_outcomes(failed=1)
    assert [] == list(base.rglob("*-evidence"))
    assert ["step_2.pt", "step_4.pt"] == sorted(path.name for path in base.rglob("*.pt"))


def test_a_checkpoint_that_is_not_there(sessions: Sessions) -> None:
    """Those that are there are listed with their steps."""
    sessions.write(
        """
        def test_wrong_step(ckpt_run):
            ckpt_run.resume(ckpt_run(train), step=3)

        def test_wrong_path(ckpt_run):
            ckpt_run.resume(ckpt_run(train), checkpoint="step_3.pt")

        def test_neither(ckpt_run):
            ckpt_run.resume(ckpt_run(train))

        def test_both(ckpt_run):
            ckpt_run.resume(ckpt_run(train), step=2, checkpoint="step_2.pt")

        def test_nothing_saved(ckpt_run):
            ckpt_run.resume(ckpt_run(lambda job: None), step=2)

        def test_stranger(ckpt_run):
            ckpt_run.resume(None, step=2)
        """
    )
    result = sessions.without_contracts()
    result.assert_outcomes(failed=6)
    errors = [line[1:].strip() for line in result.outlines if line.startswith("E  ")]
    assert snapshot(
        [
            "InvalidArgument: ckpt_run.resume finds no checkpoint of step 3; saved: step_2.pt (step 2), step_4.pt (step 4)",
            "InvalidArgument: ckpt_run.resume finds no checkpoint 'step_3.pt'; saved: step_2.pt (step 2), step_4.pt (step 4)",
            "InvalidArgument: ckpt_run.resume needs either step= or checkpoint=; saved: step_2.pt (step 2), step_4.pt (step 4)",
            "InvalidArgument: ckpt_run.resume needs either step= or checkpoint=; saved: step_2.pt (step 2), step_4.pt (step 4)",
            "InvalidArgument: ckpt_run.resume finds no checkpoint of step 2; saved: none",
            "InvalidArgument: ckpt_run.resume needs a record that ckpt_run(...) returned in this test",
        ]
    ) == [line.replace("pytest_ckpt.errors.", "") for line in errors]


def test_a_job_that_fails(sessions: Sessions) -> None:
    """Its error is told with its own traceback, unless the test wants to look for itself."""
    sessions.write(
        """
        def fails(job):
            raise ValueError("no data")

        def test_checked(ckpt_run):
            ckpt_run(fails)

        def test_expected(ckpt_run):
            assert "raised" == ckpt_run(fails, check=False).outcome.status

        def test_skips(ckpt_run):
            ckpt_run(lambda job: pytest.skip("needs two GPUs"))

        def test_resume_fails(ckpt_run):
            def train_once(job):
                if job.resume_from: raise ValueError("can't resume")
                train(job)
            run = ckpt_run(train_once)
            assert "raised" == ckpt_run.resume(run, step=2, check=False).outcome.status
            ckpt_run.resume(run, step=2)
        """
    )
    result = sessions.without_contracts("-rs")
    result.assert_outcomes(passed=1, failed=2, skipped=1)
    result.stdout.fnmatch_lines(["E *HarnessError: the job did not end well: ValueError: no data"])
    result.stdout.fnmatch_lines(["E *HarnessError: the job did not end well: ValueError: can't resume"])
    assert "pytest_ckpt/" not in result.stdout.str()
    result.stdout.fnmatch_lines(["SKIPPED [[]1[]] test_jobs.py:*: needs two GPUs"])
