"""Bugs of training loops that need no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from jobs import plain
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.size import Compact

if TYPE_CHECKING:
    from collections.abc import Callable

    from bugs.conftest import Shows
    from pytest_ckpt import Job

LAST, EVERY = 10, 5


def cosine(*forget: str) -> Callable[[Job], None]:
    """Return a job with a cosine schedule, which leaves parts of its state out of its checkpoints."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(update, LAST)
        saver = plain.Saver(job, forget=forget, model=model, optimizer=update, scheduler=scheduler)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            scheduler.step()

    return train


def test_pt_07_schedule_starts_anew(shows: Shows) -> None:
    """A checkpoint without the scheduler's state: the schedule starts anew when training is resumed."""
    shows("PT-07", cosine("scheduler"), Resumable())


def test_pt_07_schedule_goes_on(shows: Shows) -> None:
    """With the scheduler's state in the checkpoint the schedule goes on."""
    shows.not_with(cosine(), Resumable())


def with_a_row(*, copied: bool) -> Callable[[Job], None]:
    """Return a job that saves a row of a large tensor in its last checkpoint."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        rows = torch.arange(1_000_000.0).reshape(1000, 1000)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
        state = {"model": model.state_dict(), "optimizer": update.state_dict()}
        torch.save({**state, "row": rows[0].clone() if copied else rows[0]}, job.path / f"step_{LAST}.pt")

    return train


def test_pt_04_view_of_a_large_tensor(shows: Shows) -> None:
    """A view is saved with all the memory that it is a part of."""
    shows("PT-04", with_a_row(copied=False), Compact())


def test_pt_04_copy_of_a_view(shows: Shows) -> None:
    """A copy takes the bytes that it has."""
    shows.not_with(with_a_row(copied=True), Compact())
