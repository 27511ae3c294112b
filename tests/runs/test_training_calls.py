"""Calls of optimizers that are no training: a step that torch takes only to make an optimizer's state is none of the job."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep

if TYPE_CHECKING:
    from conftest import Judge
    from pytest_ckpt import Job

dcp: Any = importlib.import_module("torch.distributed.checkpoint")
OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def train(job: Job, kind: str, *, restores: bool = True, early: bool = False) -> None:
    """Train and save by torch's recipe: both the state that is saved and the one that is loaded into are asked for."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = OPTIMIZERS[kind](model.parameters(), lr=0.01)
    done = 0
    if early:
        get_state_dict(model, optimizer)
    if job.resume_from:
        weights, moments = get_state_dict(model, optimizer)
        state: dict[str, Any] = {"model": weights, "step": 0, **({"optimizer": moments} if restores else {})}
        dcp.load(state, checkpoint_id=job.resume_from)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state.get("optimizer", moments))
        done = state["step"]
    for step in range(done + 1, 7):
        model(torch.full((8, 4), step / 10)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 3 == 0:
            weights, moments = get_state_dict(model, optimizer)
            dcp.save({"model": weights, "optimizer": moments, "step": step}, checkpoint_id=f"{job.dir}/step-{step}")


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's of a single process
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_states_that_torch_makes(judge: Judge, kind: str, *, early: bool) -> None:
    """They are made by a step with gradients and a learning rate of zero, before a load or the first save."""
    verdicts = judge(lambda job: train(job, kind, early=early), FinalStep(), Faithful(), Resumable())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, str(judge)
    assert (3, 6) == judge.baseline.saved_steps


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_state_that_is_not_put_back(judge: Judge) -> None:
    """The optimizer is named, and nothing of the step that torch takes."""
    (finding, *_) = judge(lambda job: train(job, "adamw", restores=False), Resumable())["resumable"].findings
    assert "optimizer" == finding.component
    assert 4 == finding.step
