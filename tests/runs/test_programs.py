"""Programs that a job starts are looked at where they train: alone, under torchrun, and under launchers of frameworks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.program import PROGRAM, TORCHRUN
from pytest_ckpt.contracts.completeness import Complete
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.runs.job import Job
from pytest_ckpt.runs.program import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt.records.run import RunRecord


def alone(*more: str) -> Callable[[Job], None]:
    """Return a job that is a program."""
    return lambda job: job.command([sys.executable, PROGRAM, *_arguments(job), *more])


def under_torchrun(*more: str) -> Callable[[Job], None]:
    """Return a job that is a program of two ranks."""
    return lambda job: job.command([*TORCHRUN, PROGRAM, *_arguments(job), *more])


def _arguments(job: Job) -> list[str]:
    found = ["--out", job.dir]
    return found if job.resume_from is None else [*found, "--checkpoint", job.resume_from]


def test_a_program(judge: Judge) -> None:
    """Its steps, states, files and resumes are seen as those of a function are."""
    verdicts = judge(alone(), FinalStep(), Faithful(), Complete(), Resumable())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, verdicts
    assert (2, 4, 6) == judge.baseline.saved_steps
    assert {()} == {one.outcome.leftovers for one in judge.lab.runs.values()}


def test_a_program_that_forgets(judge: Judge) -> None:
    """What is lost is named: the last step, and on a resume the optimizer."""
    verdicts = judge(alone("--steps", "5", "--forget"), FinalStep(), Resumable())
    assert 5 == verdicts["final_step"].findings[0].step
    assert "optimizer" == verdicts["resumable"].findings[0].component


@pytest.mark.skipif(sys.platform != "linux", reason="what torchrun leaves is ended on Linux")
def test_two_ranks_under_torchrun(judge: Judge) -> None:
    """The process of rank 0 is looked at; when enough is seen, all are ended."""
    verdicts = judge(under_torchrun("--steps", "3"), FinalStep(), Resumable())
    assert 3 == verdicts["final_step"].findings[0].step
    assert "held" == verdicts["resumable"].status, verdicts
    assert 3 == judge.baseline.last_step
    assert {()} == {one.outcome.leftovers for one in judge.lab.runs.values()}


@pytest.fixture
def baseline_of(tmp_path: Path) -> Callable[[Callable[[Job], None]], RunRecord]:
    """Run a job once and return what was seen."""

    def run_once(body: Callable[[Job], None]) -> RunRecord:
        job = Job(tmp_path / "job")
        job.path.mkdir()
        settings = LabSettings(timeout=60)
        return Lab(
            job=job, body=lambda: body(job), folder=tmp_path / "evidence", seed_text="program", settings=settings
        ).run()

    return run_once


def test_a_program_that_fails(baseline_of: Callable[[Callable[[Job], None]], RunRecord]) -> None:
    """Its exit code is told where it says nothing, with what was seen of it."""
    found = baseline_of(alone("--fail"))
    assert "raised" == found.outcome.status
    assert "the program left with exit code 3" == found.outcome.message
    assert 3 == found.outcome.exit_code
    assert (2, 4, 6) == found.saved_steps


def test_the_error_of_a_program(baseline_of: Callable[[Callable[[Job], None]], RunRecord], tmp_path: Path) -> None:
    """It is told as that of a function is, not that a program has failed."""
    (tmp_path / "nothing.pt").touch()
    found = baseline_of(alone("--checkpoint", str(tmp_path / "nothing.pt")))
    assert "EOFError" == found.outcome.message
    assert f'File "{PROGRAM}", line' in found.outcome.traceback
    assert "subprocess" not in found.outcome.traceback


@pytest.mark.parametrize("launch", [alone, under_torchrun])
def test_arguments_that_a_program_does_not_know(
    baseline_of: Callable[[Callable[[Job], None]], RunRecord], launch: Callable[..., Callable[[Job], None]]
) -> None:
    """What argparse says is told; it does not end by an exception, and torchrun only knows that a process has failed."""
    found = baseline_of(launch("--resume"))
    code = 2 if launch is alone else 1
    assert (
        f"the program left with exit code {code}: program.py: error: unrecognized arguments: --resume"
        == found.outcome.message
    )


def test_a_program_that_a_signal_ends(baseline_of: Callable[[Callable[[Job], None]], RunRecord]) -> None:
    """Its name is told, and it is no exit code."""
    kills_itself = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    found = baseline_of(lambda job: job.command([sys.executable, "-c", kills_itself]))
    assert f"the program was killed by SIGTERM (signal {signal.SIGTERM:d})" == found.outcome.message
    assert signal.SIGTERM == found.outcome.signal
    assert found.outcome.exit_code is None


def test_a_thread_of_gloo_outlives_python(baseline_of: Callable[[Callable[[Job], None]], RunRecord]) -> None:
    """It aborts a rank now and then, at its end: what the program can do is told, as torchrun only says that it was aborted."""
    aborted = "import os, sys; print('terminate called without an active exception', file=sys.stderr); sys.exit(1)"
    found = baseline_of(lambda job: job.command([sys.executable, "-c", aborted]))
    assert "gc.collect() before they end" in found.outcome.message


def test_a_rank_fails_under_torchrun(baseline_of: Callable[[Callable[[Job], None]], RunRecord], tmp_path: Path) -> None:
    """The error of the rank is told, and not that of torchrun, also where it has ended the other rank before that told any."""
    (tmp_path / "nothing.pt").touch()
    found = baseline_of(under_torchrun("--checkpoint", str(tmp_path / "nothing.pt")))
    assert found.outcome.message in {"EOFError", "the program left with exit code 1: EOFError"}


def test_what_a_program_asserts_of_a_whole_run(judge: Judge, tmp_path: Path) -> None:
    """It may not hold of a resumed one, whose loss is a mean over fewer steps; as in a function."""
    program = tmp_path / "train.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(PROGRAM.parent)!r}); import program\n"
        "try:\n    program.main()\nexcept SystemExit:\n    pass\n"
        "assert '--checkpoint' not in sys.argv, 'the mean of the losses'\n",
        encoding="utf-8",
    )
    verdict = judge(lambda job: job.command([sys.executable, program, *_arguments(job)]), Resumable())["resumable"]
    assert "held" == verdict.status, str(judge)


def test_without_an_experiment_it_is_only_run(tmp_path: Path) -> None:
    """As where a debugger calls the job in its own process; an unknown program is an error."""
    job = Job(tmp_path)
    alone("--steps", "2")(job)
    assert ["step_2.pt"] == [path.name for path in tmp_path.iterdir()]
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        job.command(["no-such-program"])


@pytest.mark.parametrize("given", ["python train.py", Path("train.py"), [], 3])
def test_what_is_no_list_of_a_program_and_its_arguments(tmp_path: Path, given: object) -> None:
    """It is told, with one that is; not that there is no program called `p`."""
    with pytest.raises(InvalidArgument, match=r"ckpt_job.command (takes a list|got an empty list)"):
        Job(tmp_path).command(given)  # type: ignore[arg-type]


def test_a_number_is_an_argument(tmp_path: Path) -> None:
    """It is passed on as text."""
    Job(tmp_path).command([sys.executable, "-c", "import sys; open(sys.argv[1], 'w').close()", 6], cwd=tmp_path)
    assert (tmp_path / "6").exists()


def test_what_python_would_import_first_is_imported(tmp_path: Path) -> None:
    """A sitecustomize of the user's own, and what their PYTHONPATH leads to."""
    (tmp_path / "sitecustomize.py").write_text("open('customized', 'w').close()\n", encoding="utf-8")
    site = run.__code__.co_filename.replace("program.py", "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run([sys.executable, "-c", "pass"], env=environment, cwd=tmp_path, watched={"PYTHONPATH": site})
    assert (tmp_path / "customized").exists()
    with pytest.raises(subprocess.CalledProcessError):
        run([sys.executable, "-c", "raise SystemExit(2)"], env=None, cwd=None)
