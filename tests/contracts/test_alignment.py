"""What `aligned` says of an interval, and of a bound that is not kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from jobs import plain
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from conftest import Judge
    from pytest_ckpt import Job


@pytest.mark.parametrize(
    ("saved", "bound", "status", "says"),
    [
        ((4, 8, 12), None, "held", ""),
        ((5, 10), None, "violated", "the interval of 5 steps does not divide 12. save every 4 or 6 steps"),
        ((4, 8), None, "violated", "find out what skips the last save"),
        ((4, 8, 12), 4, "held", ""),
        ((4, 8, 12), 3, "violated", "saves are up to 4 steps apart, or from the end. save every 3 steps or more often"),
        ((5, 10), 5, "held", ""),
    ],
)
def test_an_interval(judge: Judge, saved: tuple[int, ...], bound: int | None, status: str, says: str) -> None:
    """What is said of the cause is true of this job."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in range(1, 13):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if step in saved:
                saver.save(step)

    verdict = judge(train, Aligned(max_lost_steps=bound))["aligned"]
    assert status == verdict.status, verdict
    assert says in " ".join(f"{finding.cause} {finding.fix}" for finding in verdict.findings)


@pytest.mark.parametrize("bound", [-1, True, 1.5, "3"])
def test_a_bound_that_is_none(bound: object) -> None:
    """The argument is named."""
    with pytest.raises(InvalidArgument, match="max_lost_steps must be a whole number of steps"):
        Aligned(max_lost_steps=bound)  # type: ignore[arg-type]
