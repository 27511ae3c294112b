"""A job in a fresh interpreter, for what does not survive a fork, comes to the same verdicts as one in a forked process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job


def job_that_forgets(*parts: str) -> Callable[[Job], None]:
    """Return a plain loop that leaves parts of its state out of the checkpoints."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, forget=parts, model=model, optimizer=update)
        for step in plain.steps(saver, 4, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()

    return train


def test_a_spawned_job_holds(judge: Judge) -> None:
    """Each run imports torch anew, and the resumed ones agree with the first."""
    verdicts = judge(job_that_forgets(), FinalStep(), Faithful(), Resumable(), start_method="spawn")
    assert {"final_step": "held", "faithful": "held", "resumable": "held"} == {
        name: verdict.status for name, verdict in verdicts.items()
    }, verdicts
    assert {"spawn"} == {run.outcome.start_method for run in judge.lab.runs.values()}


def test_a_spawned_job_is_found_out(judge: Judge) -> None:
    """A forgotten optimizer is seen in a fresh interpreter as well."""
    verdict = judge(job_that_forgets("optimizer"), Resumable(), start_method="spawn")["resumable"]
    assert ("violated", "optimizer") == (verdict.status, verdict.findings[0].component)


def test_a_hang_before_the_first_step_is_tried_again_without_a_fork(judge: Judge) -> None:
    """Some libraries hang in a forked process: the run is made once more in a fresh interpreter, and says so."""
    from os import getppid

    parent = getppid()

    def train(job: Job) -> None:
        if getppid() != parent and not _is_fresh():
            time.sleep(600)
        job_that_forgets()(job)

    verdict = judge(train, FinalStep(), timeout=15.0)["final_step"]
    assert "held" == verdict.status
    assert "spawn, after a hang under fork" == judge.baseline.outcome.start_method


def _is_fresh() -> bool:
    """Say whether this interpreter was started for the job: pytest was never imported in it."""
    import sys

    return "_pytest.main" not in sys.modules
