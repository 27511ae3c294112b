"""What a crash of a job of two ranks leaves: the operations of both make the states, and both start again in each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from jobs import ranks
from jobs.program import PROGRAM, TORCHRUN
from pytest_ckpt.contracts.crashing import CrashSafe, PowerSafe
from pytest_ckpt.contracts.filling import DiskFull
from pytest_ckpt.contracts.preempting import Preemptible
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.records.experiment import TRACED

if TYPE_CHECKING:
    from conftest import Judge

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be traced here")

#: Two ranks take a second or more to start.
_FEW = 6


def test_a_checkpoint_that_both_overwrite(judge: Judge) -> None:
    """Killed in a save, old metadata stand beside what one of them has written (PT-03)."""
    verdict = judge(lambda job: ranks.launch(ranks.saved_by_both, job, "last"), CrashSafe(most=_FEW))["crash_safe"]
    assert "violated" == verdict.status, verdict
    assert "no whole checkpoint any more, though step 2 had been saved" in verdict.sentence
    trace = judge.lab.runs[TRACED].trace
    assert trace is not None
    assert 2 == len({operation.process for operation in trace.operations if (operation.path or "").endswith(".distcp")})


def test_each_step_has_a_place_of_its_own(judge: Judge) -> None:
    """The metadata are written last: what lacks them is passed over."""
    verdict = judge(lambda job: ranks.launch(ranks.saved_by_both, job, "step{}"), CrashSafe(most=_FEW))["crash_safe"]
    assert "held" == verdict.status, verdict
    assert {()} == {run.outcome.leftovers for run in judge.lab.runs.values()}


def test_the_power_fails_while_the_metadata_are_written(judge: Judge) -> None:
    """They are synced before they are written (PT-20), with two ranks as with one."""
    verdict = judge(lambda job: ranks.launch(ranks.saved_by_both, job, "step{}"), PowerSafe(most=_FEW))["power_safe"]
    assert "violated" == verdict.status, verdict
    assert ".metadata" in verdict.findings[0].cause


@pytest.mark.parametrize("by", [None, 1])
def test_both_are_sent_a_signal(judge: Judge, by: int | None) -> None:
    """As by a scheduler: a job of which rank 1 alone minds leaves in time as well, in a save of rank 0's too."""
    train = lambda job: ranks.launch(partial(ranks.preempted, by=by), job)  # noqa: E731
    verdict = judge(train, Preemptible(phases=("step", "save")))["preemptible"]
    assert "held" == verdict.status, verdict


def test_a_signal_ends_both(judge: Judge) -> None:
    """What was trained since the last save is lost, and nothing of the job is left."""
    train = lambda job: ranks.launch(ranks.saved_by_one, job)  # noqa: E731
    verdict = judge(train, Preemptible(phases=("step",)))["preemptible"]
    assert "a signal costs what was trained since the last save: step 3 is lost" in verdict.sentence
    assert {()} == {run.outcome.leftovers for run in judge.lab.runs.values()}


def test_a_disk_that_is_full_for_both(judge: Judge) -> None:
    """The error of either ends the job, and what was saved before is whole; where rank 0 passes over it, that is told."""
    right = judge(lambda job: ranks.launch(ranks.saved_by_both, job, "step{}"), DiskFull(most=_FEW))["disk_full"]
    assert "held" == right.status, right
    assert "ended the job with an error" in right.sentence
    wrong = judge(lambda job: ranks.launch(ranks.saved_heedlessly, job), DiskFull(most=_FEW))["disk_full"]
    assert "violated" == wrong.status, wrong


def test_under_torchrun(judge: Judge) -> None:
    """Ranks that torchrun starts are seen, and started again, as those that are forked."""
    program = [*TORCHRUN, str(PROGRAM), "--place", "last"]
    search = {True: ["--search"], False: []}
    verdict = judge(lambda job: job.command([*program, "--out", job.dir, *search[job.restarting]]), CrashSafe(most=1))[
        "crash_safe"
    ]
    assert "violated" == verdict.status, verdict
    assert "no whole checkpoint any more, though step 2 had been saved" in verdict.sentence
    trace = judge.lab.runs[TRACED].trace
    assert trace is not None
    assert {0, 1} == {one.rank for one in trace.operations if (one.path or "").endswith(".distcp")}
    assert {()} == {run.outcome.leftovers for run in judge.lab.runs.values()}
