"""Programs that a job starts are looked at where they train: alone, under torchrun, and under launchers of frameworks."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobs.program import PROGRAM, TORCHRUN
from pytest_ckpt.contracts.completeness import Complete
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.runs.job import Job
from pytest_ckpt.runs.program import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Judge


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


def test_a_program_that_fails(tmp_path: Path) -> None:
    """Its exit code is told, with what was seen of it."""
    job = Job(tmp_path / "job")
    job.path.mkdir()
    lab = Lab(
        job=job,
        body=lambda: alone("--fail")(job),
        folder=tmp_path / "evidence",
        seed_text="program",
        settings=LabSettings(timeout=60),
    )
    found = lab.run()
    assert "raised" == found.outcome.status
    assert "exit status 3" in found.outcome.message
    assert (2, 4, 6) == found.saved_steps


def test_without_an_experiment_it_is_only_run(tmp_path: Path) -> None:
    """As where a debugger calls the job in its own process; an unknown program is an error."""
    job = Job(tmp_path)
    alone("--steps", "2")(job)
    assert ["step_2.pt"] == [path.name for path in tmp_path.iterdir()]
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        job.command(["no-such-program"])


def test_what_python_would_import_first_is_imported(tmp_path: Path) -> None:
    """A sitecustomize of the user's own, and what their PYTHONPATH leads to."""
    (tmp_path / "sitecustomize.py").write_text("open('customized', 'w').close()\n", encoding="utf-8")
    site = run.__code__.co_filename.replace("program.py", "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run([sys.executable, "-c", "pass"], env=environment, cwd=tmp_path, watched={"PYTHONPATH": site})
    assert (tmp_path / "customized").exists()
    with pytest.raises(subprocess.CalledProcessError):
        run([sys.executable, "-c", "raise SystemExit(2)"], env=None, cwd=None)
