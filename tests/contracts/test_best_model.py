"""What a framework takes for the best checkpoint: another one is better, it is gone, or it is right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("transformers")
from jobs import hf
from pytest_ckpt.contracts.best_model import Best

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from conftest import Judge
    from pytest_ckpt import Job

pytestmark = pytest.mark.filterwarnings("default")


LOSSES = {2: 0.5, 4: 0.2, 6: 0.6, 8: 0.4}
SETTINGS: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 8}


def job(script: Mapping[int, float], **given: Any) -> Callable[[Job], object]:
    """Return a Trainer job that evaluates every second step, with these losses."""
    return lambda job: hf.run(job, script=script, **{**SETTINGS, **given})


def test_the_best_is_recorded_and_loaded(judge: Judge) -> None:
    """With a save at every evaluation the best is on disk, and in memory at the end."""
    verdict = judge(job(LOSSES, load_best_model_at_end=True), Best())["best"]
    assert "held" == verdict.status, verdict
    expected = (
        "checkpoint-4, eval_loss 0.2 of step 4, is the best of the saved steps 2, 4, 6, 8, and is what is in memory"
    )
    assert f"{expected} at the end" == verdict.sentence


def test_the_best_within_a_limit(judge: Judge) -> None:
    """A limit keeps the best beside the newest."""
    verdict = judge(job(LOSSES, load_best_model_at_end=True, save_total_limit=2), Best())["best"]
    assert "held" == verdict.status, verdict


def test_a_best_evaluation_that_was_not_saved(judge: Judge) -> None:
    """Where evaluations are more frequent than saves the record is not the best of what was saved."""
    script = {2: 0.1, 4: 0.5, 6: 0.6, 8: 0.2}
    if hf.VERSION >= (4, 50):
        assert "not_applicable" == judge(job(script, metric_for_best_model="loss", save_steps=4), Best())["best"].status
        verdict = judge(job(script, load_best_model_at_end=True, save_steps=4), Best())["best"]
        assert ("violated", 8, "best") == (verdict.status, verdict.findings[0].step, verdict.findings[0].component)
        assert "step 8 was saved with eval_loss 0.2" in verdict.sentence
        assert "save_steps equal to eval_steps" in verdict.findings[0].fix


def test_evaluations_and_saves_that_meet(judge: Judge) -> None:
    """The same losses with a save at every evaluation."""
    verdict = judge(job({2: 0.1, 4: 0.5, 6: 0.6, 8: 0.2}, metric_for_best_model="loss"), Best())["best"]
    assert "held" == verdict.status, verdict


def test_losses_that_are_all_nan(judge: Judge) -> None:
    """Nothing is the best of what could not be compared, and nothing says so."""
    verdict = judge(job(dict.fromkeys((2, 4, 6, 8), math.nan), load_best_model_at_end=True), Best())["best"]
    assert ("violated", "eval_loss was NaN at all 4 evaluations, so no checkpoint is the best") == (
        verdict.status,
        verdict.sentence,
    )


def test_a_best_that_the_job_deletes(judge: Judge) -> None:
    """The record points to a directory that is not there any more."""

    def train(job_: Job) -> None:
        job(LOSSES, metric_for_best_model="loss")(job_)
        (job_.path / "checkpoint-4").rename(job_.path / "moved")

    verdict = judge(train, Best())["best"]
    assert ("violated", True) == (
        verdict.status,
        "checkpoint-4 is recorded as the best and is not on disk" in verdict.sentence,
    )


def test_weights_that_change_after_the_best_was_loaded(judge: Judge) -> None:
    """What is in memory at the end is not the best checkpoint."""

    def train(job_: Job) -> None:
        import torch

        trainer: Any = hf.trainer(job_, script=LOSSES, **SETTINGS, load_best_model_at_end=True)
        trainer.train(resume_from_checkpoint=job_.resume_from)
        with torch.no_grad():
            trainer.model.first.weight.add_(1)

    verdict = judge(train, Best())["best"]
    assert ("violated", True) == (
        verdict.status,
        "1 of 4 parameters are not those of checkpoint-4" in verdict.sentence,
    ), verdict


def test_a_job_without_a_metric(judge: Judge) -> None:
    """Where no best is chosen the contract does not apply."""
    verdict = judge(lambda job: hf.run(job, max_steps=4, save_steps=2), Best())["best"]
    assert "not_applicable" == verdict.status


def test_the_best_of_lightning(judge: Judge) -> None:
    """ModelCheckpoint with a monitor keeps the best."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    package = "lightning.pytorch"

    def train(job: Job) -> None:
        module = pl.model(package, scores=lambda epoch: [0.5, 0.2, 0.6][epoch])
        pl.fit(package, job, pl.checkpoint(package, monitor="score"), module=module, validation=pl.loader())

    verdict = judge(train, Best())["best"]
    expected = "checkpoints/epoch=1-step=10.ckpt, score 0.2 of step 10, is the best of the saved steps 5, 10"
    assert ("held", expected) == (verdict.status, verdict.sentence)


def test_the_best_is_exported_after_training(judge: Judge) -> None:
    """A save of the loaded weights does not hide that they are those of the best."""

    def train(job_: Job) -> None:
        trainer = hf.trainer(job_, script=LOSSES, **SETTINGS, load_best_model_at_end=True)
        trainer.train(resume_from_checkpoint=job_.resume_from)
        trainer.save_model(f"{job_.dir}/best")

    verdict = judge(train, Best())["best"]
    assert "held" == verdict.status, verdict
