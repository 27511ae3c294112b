"""Saves after a resume: where they are counted from the wrong step, where they are right, and where nothing can be said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.stability import StableSchedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job

LAST, EVERY = 11, 4


def job(due: Callable[[int, int], bool], *, again: bool = False) -> Callable[[Job], None]:
    """Return a plain loop that saves where `due` says so, of the step and of the one it was resumed from."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        start = saver.load()
        if start and again:
            torch.save({**torch.load(str(job.resume_from), weights_only=False), "resumed": True}, str(job.resume_from))
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if due(step, start) or step == LAST:
                saver.save(step)

    return train


def by_step(step: int, start: int) -> bool:
    """Count from the beginning of the run."""
    del start
    return step % EVERY == 0


def test_saves_counted_from_the_resume(judge: Judge) -> None:
    """The interval starts anew where the run was resumed: other steps are saved."""

    def due(step: int, start: int) -> bool:
        return (step - start - 1) % EVERY == EVERY - 2

    verdict = judge(job(due), StableSchedule())["stable_schedule"]
    assert ("violated", "schedule") == (verdict.status, verdict.findings[0].component)
    assert (
        "resumed from step 3, other steps are saved than without the interruption: missing step 7; unexpected steps 6, 10"
        == verdict.sentence
    )
    assert (("uninterrupted", "steps 7, 11"), ("resumed", "steps 6, 10, 11")) == verdict.findings[0].rows
    assert "counted from the step that was resumed from" in verdict.findings[0].cause


def test_saves_counted_from_the_beginning(judge: Judge) -> None:
    """Counted from the beginning of the run, the same steps are saved."""
    verdict = judge(job(by_step), StableSchedule())["stable_schedule"]
    assert ("held", "resumed from steps 4, 8, the same steps are saved as without the interruption") == (
        verdict.status,
        verdict.sentence,
    )


def test_what_was_resumed_from_is_saved_again(judge: Judge) -> None:
    """A resume that writes its checkpoint once more is told so."""
    verdict = judge(job(by_step, again=True), StableSchedule())["stable_schedule"]
    assert "saved again step 4" in verdict.sentence
    assert "written once more" in verdict.findings[0].cause


def test_a_trainer_of_transformers(judge: Judge) -> None:
    """The Trainer saves by its global step, and at the end."""
    pytest.importorskip("transformers")
    from jobs import hf

    verdict = judge(lambda job: hf.run_repaired(job, max_steps=10, save_steps=4, save_total_limit=2), StableSchedule())
    assert "held" == verdict["stable_schedule"].status


@pytest.mark.filterwarnings("default")
def test_a_trainer_of_lightning(judge: Judge) -> None:
    """Lightning goes on with its epochs."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    package = "lightning.pytorch"
    callback = {"every_n_epochs": 1, "save_top_k": -1}
    verdict = judge(lambda job: pl.fit(package, job, pl.checkpoint(package, **callback)), StableSchedule())
    assert "held" == verdict["stable_schedule"].status


def test_only_the_last_step(judge: Judge) -> None:
    """Where only the last step is saved nothing follows it."""
    verdict = judge(job(lambda step, start: False), StableSchedule())["stable_schedule"]  # noqa: ARG005 - as asked
    assert ("inconclusive", True) == (verdict.status, "every checkpoint is of the last step" in verdict.sentence)
