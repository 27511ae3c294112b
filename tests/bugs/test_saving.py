"""Bugs that lose the last step, or save less often than the settings say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from jobs import hf
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.contracts.best_model import Best
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bugs.conftest import Shows
    from conftest import Judge
    from pytest_ckpt import Job

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")

EVERY_TWO: Final[Mapping[str, Any]] = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}


def job(**given: Any) -> Callable[[Job], None]:
    """Return a job with these settings."""
    return lambda job: hf.run(job, **given)


def test_hf_01_interval_does_not_divide(shows: Shows) -> None:
    """With save_strategy='steps' the last step is not saved unless save_steps divides max_steps."""
    shows("HF-01", job(max_steps=7, save_steps=3), FinalStep())


def test_hf_01_interval_divides(shows: Shows) -> None:
    """A number of steps that save_steps divides loses nothing."""
    shows.not_with(job(max_steps=6, save_steps=3), FinalStep(), Count(2))


def lay_older_checkpoints(directory: Path, *steps: int) -> None:
    """Put checkpoints of an earlier, longer run into a directory, written in 1970."""
    for step in steps:
        checkpoint = directory / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "trainer_state.json").write_text("{}", encoding="utf-8")
        os.utime(checkpoint, (step, step))


def test_hf_03_older_checkpoints_outnumber_the_new_ones(judge: Judge, shows: Shows) -> None:
    """Beside higher-numbered checkpoints of an older run, each new checkpoint is deleted right after it was written."""
    lay_older_checkpoints(judge.next_directory, 8, 12)
    shows("HF-03", job(max_steps=6, save_steps=2, save_total_limit=2), FinalStep())


def test_hf_03_what_a_limit_deletes(judge: Judge, shows: Shows) -> None:
    """A limit counts what it finds in the directory: the new checkpoints go, or since 4.52 those of the older run."""
    lay_older_checkpoints(judge.next_directory, 8, 12)
    shows("HF-03", job(max_steps=6, save_steps=2, save_total_limit=2), Retention())


def test_hf_03_empty_directory(shows: Shows) -> None:
    """In a directory of its own the run keeps its newest checkpoints."""
    shows.not_with(job(max_steps=6, save_steps=2, save_total_limit=2), FinalStep(), Count(2), Retention())


WORSE: Final = {2: 0.1, 4: 0.5, 6: 0.9}


def test_hf_12_only_the_best_is_kept(shows: Shows) -> None:
    """A limit of one and a metric delete the final checkpoint when training ends, though no best model is asked for."""
    given = {"script": WORSE, "max_steps": 6, "save_total_limit": 1, **EVERY_TWO}
    shows("HF-12", job(metric_for_best_model="loss", **given), FinalStep())


def test_hf_12_a_limit_of_one_deletes_the_newest(shows: Shows) -> None:
    """The newest checkpoint does not survive the limit."""
    given = {"script": WORSE, "max_steps": 6, "save_total_limit": 1, **EVERY_TWO}
    shows("HF-12", job(metric_for_best_model="loss", **given), Retention())


def test_hf_12_a_plateau_schedule_sets_the_metric(shows: Shows) -> None:
    """The schedule reduce_lr_on_plateau brings the metric along, and so the deletion."""
    given = {"script": WORSE, "max_steps": 6, "save_total_limit": 1, **EVERY_TWO}
    verdict = shows("HF-12", job(lr_scheduler_type="reduce_lr_on_plateau", **given), FinalStep())
    assert "lr_scheduler_type='reduce_lr_on_plateau'" in verdict.findings[0].cause


def test_hf_12_room_for_two(shows: Shows) -> None:
    """A limit of two keeps the best and the last, as the finding advises."""
    given = {"script": WORSE, "max_steps": 6, "save_total_limit": 2, **EVERY_TWO}
    shows.not_with(job(metric_for_best_model="loss", **given), FinalStep(), Count(2), Retention())


STOPS: Final[Mapping[str, Any]] = {
    "script": {2: 0.1, 4: 0.5, 6: 0.7},
    "max_steps": 20,
    "load_best_model_at_end": True,
    **EVERY_TWO,
}


#: Evaluations without progress until training stops at step 6; before 4.47 a metric counts only once it is saved.
PATIENCE: Final = 2 if hf.VERSION >= (4, 47) else 1


def stopping(*more: type[transformers.TrainerCallback], **given: Any) -> Callable[[Job], None]:
    """Return a job that stops early, at an evaluation."""
    callbacks = [transformers.EarlyStoppingCallback(PATIENCE), *more]
    return lambda job: hf.run(job, callbacks=callbacks, **{**STOPS, **given})


SCORES: Final = {2: 0.9, 4: 0.5, 6: 0.1, 8: 0.2}


def test_hf_13_best_evaluation_between_two_saves(shows: Shows) -> None:
    """The record of the best stays with an old checkpoint when the best evaluation was at a step that is not saved."""
    shows(
        "HF-13", job(script=SCORES, max_steps=8, **{**EVERY_TWO, "save_steps": 4}, load_best_model_at_end=True), Best()
    )


def test_hf_13_every_evaluation_is_saved(shows: Shows) -> None:
    """With a save at every evaluation the best is recorded and loaded."""
    shows.not_with(job(script=SCORES, max_steps=8, **EVERY_TWO, load_best_model_at_end=True), Best())


def test_hf_14_stopped_between_two_saves(shows: Shows) -> None:
    """EarlyStoppingCallback stops at a step that is not saved, and the last state is lost."""
    shows("HF-14", stopping(save_steps=4), FinalStep())


class SaveWhenStopping(transformers.TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Saves where training is stopped, as the finding advises."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a save."""
        del args, state
        control.should_save = control.should_save or control.should_training_stop


def test_hf_14_saved_when_stopping(shows: Shows) -> None:
    """A callback that asks for a save where training is stopped loses nothing."""
    shows.not_with(stopping(SaveWhenStopping, save_steps=4), FinalStep())


def test_hf_29_fraction_is_rounded_up(shows: Shows) -> None:
    """A fraction of the steps is rounded up to whole steps: six saves are asked for and five are made."""
    shows("HF-29", job(num_train_epochs=3, save_steps=1 / (2 * 3)), Count(6))


def test_hf_29_float_error_is_rounded_up(judge: Judge) -> None:
    """0.07 of 100 steps are 7.000000000000001 in floating point, and so every 8th step is saved."""
    verdict = judge(job(max_steps=100, save_steps=0.07), Count(14))["count"]
    assert "violated" == verdict.status
    assert "save_steps=0.07 of 100 steps is 7.0000000000000009 steps" in verdict.findings[0].cause


@pytest.mark.skipif(hf.VERSION < (4, 42), reason="this transformers does not save the last step, either (bug HF-01)")
def test_hf_29_other_steps_are_saved(shows: Shows) -> None:
    """Every 7th step is meant, and every 8th is saved."""
    shows("HF-29", job(max_steps=100, save_steps=0.07), Steps(every=7))


def test_hf_29_fraction_of_whole_steps(shows: Shows) -> None:
    """A fraction that comes to whole steps gives as many checkpoints as asked for."""
    shows.not_with(job(max_steps=18, save_steps=1 / 6), Count(6), FinalStep())


def axolotl(saves_per_epoch: int) -> Callable[[Job], None]:
    """Return a rehearsal of two epochs of 789 steps, saved as Axolotl has it: by a fraction of the run."""

    def train(job: Job) -> None:
        samples = torch.utils.data.TensorDataset(torch.zeros(789 * hf.BATCH))
        job.rehearse(hf.trainer(job, data=samples, num_train_epochs=2, save_steps=1.0 / (saves_per_epoch * 2)))

    return train


def test_ax_01_saves_per_epoch(shows: Shows) -> None:
    """Axolotl's saves_per_epoch=2 in two epochs is a quarter of 1578 steps, rounded up to 395: the last save is missed."""
    shows("AX-01", axolotl(2), FinalStep())


def test_ax_01_an_interval_that_divides(shows: Shows) -> None:
    """With saves_per_epoch=3 the interval is 263, a sixth of the run, and the last save is that of the last step."""
    shows.not_with(axolotl(3), FinalStep(), Count(6), Aligned())
