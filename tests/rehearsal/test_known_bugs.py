"""Bugs of transformers that a rehearsal of an ordinary configuration finds on the releases that have them, and the twins."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from transformers import EarlyStoppingCallback

from bugs.known import bug
from jobs import hf
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps

if TYPE_CHECKING:
    from conftest import Judge
    from pytest_ckpt import Contract, Job

pytestmark = pytest.mark.filterwarnings("default")

#: Evaluations get no better after the third.
LOSSES: Final = [0.9, 0.8, 0.5, 0.6, 0.7, 0.8]


def job(job: Job, *, samples: int = 4000, stops: bool = False, **given: Any) -> None:
    """Rehearse a run over so many samples in batches of 4."""
    callbacks = [EarlyStoppingCallback(2)] if stops else []
    data = torch.utils.data.TensorDataset(torch.zeros(samples))
    trainer = hf.trainer(job, data=data, callbacks=callbacks, **given)
    job.rehearse(trainer, metric={"eval_loss": LOSSES})


def sentence(judge: Judge, contract: Contract, **given: Any) -> str:
    """Return what a contract says of a rehearsal, empty where it holds."""
    verdict = judge(partial(job, **given), contract)[contract.name]
    assert verdict.status in {"held", "violated"}, verdict
    return "" if verdict.status == "held" else verdict.sentence


def test_hf_01_interval_does_not_divide(judge: Judge) -> None:
    """Every 300 of 1000 steps: the last hundred are lost before 4.42, and with every 250 never."""
    found = "training ended at step 1000 and the newest checkpoint is of step 900: steps 901 to 1000 are lost"
    assert (found if bug("HF-01", "final_step").is_here else "") == sentence(
        judge, FinalStep(), max_steps=1000, save_steps=300
    )
    assert not sentence(judge, FinalStep(), max_steps=1000, save_steps=250)


def test_hf_29_a_fraction_is_rounded_up(judge: Judge) -> None:
    """Six saves in three epochs of 335 steps are 167.5 steps apart, rounded up to 168; with epochs of 336 steps they fit."""
    given = {"num_train_epochs": 3, "save_steps": 1 / 6}
    assert sentence(judge, Aligned(), samples=4 * 335, **given).startswith("1005 steps are 5 times the interval of 168")
    assert not sentence(judge, Aligned(), samples=4 * 336, **given)


def test_hf_29_a_float_error_is_rounded_up(judge: Judge) -> None:
    """0.07 of 100 steps are taken for 8 steps: 14 saves are meant and fewer are made; 0.05 comes to whole steps."""
    made = 13 if hf.VERSION >= (4, 42) else 12  # the last step is saved by itself
    given = {"max_steps": 100, "save_steps": 0.07}
    assert f"{made} checkpoints on disk, expected 14" == sentence(judge, Count(14), **given)
    assert not sentence(judge, Steps(every=5), max_steps=100, save_steps=0.05)


@pytest.mark.parametrize(("save_steps", "lost"), [(200, True), (100, False)])
def test_hf_14_stopped_between_two_saves(judge: Judge, save_steps: int, *, lost: bool) -> None:
    """Stopped at step 500: a run that saves every 200 loses the last hundred, one that saves at each evaluation none."""
    given = {"eval_strategy": "steps", "eval_steps": 100, "metric_for_best_model": "eval_loss", "max_steps": 5000}
    if hf.VERSION < (4, 47):  # early stopping counts from the best that is saved
        pytest.skip("before 4.47 the best is only renewed at a save, so that such a run stops elsewhere")
    best = {} if lost else {"load_best_model_at_end": True}
    found = sentence(judge, FinalStep(), stops=True, save_steps=save_steps, **given, **best)
    assert 500 == judge.baseline.last_step
    expected = "training ended at step 500 and the newest checkpoint is of step 400: steps 401 to 500 are lost"
    assert (expected if lost else "") == found
