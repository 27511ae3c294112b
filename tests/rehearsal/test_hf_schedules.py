"""A rehearsal of the Trainer saves and keeps what the real run does: random configurations, run both ways."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from jobs import hf
from pytest_ckpt.frameworks import builtin
from pytest_ckpt.runs.job import Job
from pytest_ckpt.strategies import schedules

if TYPE_CHECKING:
    from pathlib import Path


class Noting(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Notes after which steps was saved."""

    def __init__(self) -> None:
        self.saved: list[int] = []

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the step."""
        del args, control
        self.saved.append(state.global_step)


class Scripted(Trainer):  # type: ignore[misc,unused-ignore]
    """Evaluates really, and takes the loss from a list."""

    losses: tuple[float, ...]
    asked = 0

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Put the next loss into the place of the real one."""
        output: Any = super().evaluation_loop(*args, **kwargs)
        output.metrics["eval_loss"] = self.losses[min(self.asked, len(self.losses) - 1)]
        self.asked += 1
        return output


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Draw settings that TrainingArguments accept."""
    schedule = schedules(
        dataset_len=hf.SAMPLES,
        batch_size=st.integers(2, 7),
        epochs=st.sampled_from([1, 2, 3, 0.5, 1.5, 2.2]),
        max_steps=st.none() | st.integers(1, 14),
        drop_last=st.booleans(),
        save_strategy=st.sampled_from(("steps", "steps", "epoch", "no")),
        save_steps=st.integers(1, 9) | st.sampled_from([0.1, 0.25, 0.3, 0.5]),
        save_total_limit=st.sampled_from([None, None, 1, 2, 3]),
    )
    found = {**draw(schedule).training_arguments(), "save_only_model": draw(st.booleans())}
    if draw(st.booleans()):
        found |= _evaluated(draw, found)
    return found


def _evaluated(draw: st.DrawFn, found: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {"eval_strategy": draw(st.sampled_from(["steps", "epoch"]))}
    if more["eval_strategy"] == "steps":
        more["eval_steps"] = draw(st.integers(1, 5))
    if hf.VERSION >= (4, 47) and draw(st.integers(0, 3)) == 0:
        found["save_strategy"], more["metric_for_best_model"] = "best", "eval_loss"
        found.pop("save_steps", None)
    elif more["eval_strategy"] == found["save_strategy"] and draw(st.booleans()):
        more |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
        if found["save_strategy"] == "steps":
            more["eval_steps"] = more["save_steps"] = draw(st.integers(1, 5))
    return more


def run(
    folder: Path, losses: tuple[float, ...], patience: int, given: dict[str, Any], *, rehearsed: bool
) -> tuple[list[int], list[str], Any]:
    """Train or rehearse; return after which steps was saved, what remains, and which checkpoint is the best."""
    folder.mkdir()
    job, noting = Job(folder, frameworks=builtin()), Noting()
    callbacks: list[Any] = [noting]
    if given.get("metric_for_best_model") and patience:
        callbacks.append(EarlyStoppingCallback(patience))
    trainer = Scripted(
        model=hf.Net(hf.Config()),
        args=hf.arguments(job, **given),
        train_dataset=hf.Samples(),
        eval_dataset=hf.Samples(),
        data_collator=hf.collate,
        callbacks=callbacks,
    )
    trainer.losses = losses
    if rehearsed:
        job.rehearse(trainer, metric=losses)
    else:
        trainer.train()
    best = trainer.state.best_model_checkpoint
    kept = sorted(path.name for path in folder.iterdir() if path.name.startswith("checkpoint-"))
    shutil.rmtree(folder)
    return noting.saved, kept, best and best.rpartition("/")[2]


@pytest.mark.filterwarnings("ignore")  # what the Trainer says of odd settings is not the matter here
@settings(
    max_examples=200 if hf.VERSION >= (5, 0) else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(
    given=configurations(),
    losses=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8).map(tuple),
    patience=st.integers(0, 2),
)
def test_saves_and_deletions_are_those_of_the_real_run(
    tmp_path: Path, given: dict[str, Any], losses: tuple[float, ...], patience: int
) -> None:
    """The same steps are saved, the same directories remain, and the same checkpoint is the best."""
    torch.manual_seed(0)
    real = run(tmp_path / "real", losses, patience, given, rehearsed=False)
    assert real == run(tmp_path / "rehearsed", losses, patience, given, rehearsed=True), given
