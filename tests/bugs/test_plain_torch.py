"""Bugs of training loops that need no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from jobs import plain
from pytest_ckpt.contracts.resuming import Resumable

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
