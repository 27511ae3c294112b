"""Averages of the weights have to be restored, wherever a job keeps them and however it calls its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pytest_ckpt.contracts.resuming import Resumable

if TYPE_CHECKING:
    from conftest import Judge
    from pytest_ckpt import Job

LAST = 8


def train(job: Job, *, closure: bool, restores: bool) -> None:
    """Train with an average that is saved, by an optimizer that calls the model itself or does not."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    done = 0
    if job.resume_from:
        saved = torch.load(job.resume_from)
        model.load_state_dict(saved["model"])
        if restores:
            average.load_state_dict(saved["average"])
        done = saved["step"]
    for step in range(done + 1, LAST + 1):

        def loss(step: int = step) -> torch.Tensor:
            optimizer.zero_grad()
            value: torch.Tensor = model(torch.full((8, 4), step / 10)).square().mean()
            value.backward()
            return value

        if closure:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()
        average.update_parameters(model)
        if step % 4 == 0:
            state = {"model": model.state_dict(), "average": average.state_dict(), "step": step}
            torch.save(state, f"{job.dir}/step_{step}.pt")


@pytest.mark.parametrize("closure", [True, False])
def test_an_optimizer_that_calls_the_model(judge: Judge, *, closure: bool) -> None:
    """No model is known yet as its first step begins: the average is there all the same, restored or not."""
    held = judge(lambda job: train(job, closure=closure, restores=True), Resumable())["resumable"]
    assert "held" == held.status, str(judge)
    broken = judge(lambda job: train(job, closure=closure, restores=False), Resumable())["resumable"]
    assert "ema" == broken.findings[0].component
