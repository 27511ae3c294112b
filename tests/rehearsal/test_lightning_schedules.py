"""A rehearsal of Lightning's Trainer saves and keeps what the real run does: random configurations, run both ways."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

pytest.importorskip("lightning.pytorch")
from jobs import pl
from pytest_ckpt.frameworks import builtin
from pytest_ckpt.runs.job import Job
from pytest_ckpt.strategies import Schedule, schedules

PACKAGE: Final = "lightning.pytorch"
EXAMPLES: Final = 200 if pl.VERSION >= (2, 6) else 60


@st.composite
def trainers(draw: st.DrawFn) -> dict[str, Any]:
    """Draw settings of a Trainer."""
    found = draw(
        schedules(accumulation=st.integers(1, 3), max_steps=st.none() | st.integers(1, 12))
    ).trainer_arguments()
    if draw(st.booleans()):
        found["val_check_interval"] = draw(st.sampled_from([1.0, 0.5, 2]))
    else:
        found["check_val_every_n_epoch"] = draw(st.integers(1, 3))
    return found


@st.composite
def checkpoints(draw: st.DrawFn) -> dict[str, Any]:
    """Draw arguments of a ModelCheckpoint."""
    found: dict[str, Any] = {
        "save_top_k": draw(st.sampled_from([-1, 1, 2])),
        "save_last": draw(st.sampled_from([None, True, "link"])),
        "filename": draw(st.sampled_from([None, "{step}", "{epoch}"])),
        "save_on_train_epoch_end": draw(st.sampled_from([None, True, False])),
    }
    match draw(st.sampled_from(["", "steps", "epochs"])):
        case "steps":
            found["every_n_train_steps"] = draw(st.integers(1, 5))
        case "epochs":
            found["every_n_epochs"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        found |= {
            "monitor": draw(st.sampled_from(["score", "train_loss"])),
            "mode": draw(st.sampled_from(["min", "max"])),
        }
    elif found["save_top_k"] == 2:
        found["save_top_k"] = 1  # without a monitor there is no best
    return found


def run(  # noqa: PLR0913 - what a run is made of
    folder: Path,
    stopping: tuple[tuple[float, ...], int],
    given: dict[str, Any],
    saving: dict[str, Any],
    *,
    rehearsed: bool,
    loader: dict[str, Any] | None = None,
) -> tuple[int, list[tuple[int, str]], list[str]]:
    """Train or rehearse; return how far it came, what was saved after which step, and what remains."""
    lightning = importlib.import_module(PACKAGE)
    scores, patience = stopping
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    job = Job(folder, frameworks=builtin())

    class Net(lightning.LightningModule):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)
            self.validations = 0

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss = cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", 1.0 + 0 * loss.detach(), on_step=True, on_epoch=False)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            assert batch is not None
            self.log("score", scores[min(self.validations, len(scores) - 1)])

        def on_validation_end(self) -> None:
            self.validations += not self.trainer.sanity_checking

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.net.parameters(), lr=0.01)

    saved: list[tuple[int, str]] = []
    callbacks = [pl.checkpoint(PACKAGE, dirpath=folder / "ckpts", **saving)]
    if patience:
        early = importlib.import_module(f"{PACKAGE}.callbacks").EarlyStopping
        callbacks.append(early("score", patience=patience, strict=False))  # a run may end before it is known
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(default_root_dir=folder, callbacks=callbacks, **quiet, **given)
    save = trainer.save_checkpoint

    def noting(path: Any, *args: Any, **kwargs: Any) -> None:
        saved.append((trainer.global_step, Path(path).name))
        save(path, *args, **kwargs)

    trainer.save_checkpoint = noting
    loaders = pl.loader(**(loader or {})), DataLoader(pl.samples(), batch_size=10)
    if rehearsed:
        job.rehearse(trainer, Net(), *loaders, metric={"score": scores})
    else:
        trainer.fit(Net(), *loaders)
    kept = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.ckpt"))
    return trainer.global_step, saved, kept


@pytest.mark.filterwarnings("ignore")  # what Lightning says of odd settings is not the matter here
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    given=trainers(),
    saving=checkpoints(),
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8).map(tuple),
    patience=st.integers(0, 2),
)
def test_saves_and_deletions_are_those_of_the_real_run(
    tmp_path: Path, given: dict[str, Any], saving: dict[str, Any], scores: tuple[float, ...], patience: int
) -> None:
    """The same is saved after the same steps, and the same files remain."""
    real = run(tmp_path / "job", (scores, patience), given, saving, rehearsed=False)
    assert real == run(tmp_path / "job", (scores, patience), given, saving, rehearsed=True), (given, saving)


@pytest.mark.filterwarnings("ignore")  # as above
@settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(schedule=schedules(dataset_len=pl.SAMPLES, max_steps=st.none() | st.integers(1, 12), drop_last=st.booleans()))
def test_a_schedule_is_one_that_lightning_follows(tmp_path: Path, schedule: Schedule) -> None:
    """Its arguments are accepted, and say when is saved and how many checkpoints remain."""
    given, saving, loader = schedule.trainer_arguments(), schedule.checkpoint_arguments(), schedule.loader_arguments()
    real = run(tmp_path / "job", ((1.0,), 0), given, saving, rehearsed=False, loader=loader)
    assert real == run(tmp_path / "job", ((1.0,), 0), given, saving, rehearsed=True, loader=loader), schedule
    steps, saved, kept = real
    if schedule.save_strategy == "steps":
        assert sorted({step for step, _ in saved}) == list(
            range(int(schedule.save_steps), steps + 1, int(schedule.save_steps))
        )
        assert len(kept) == min(len(saved), schedule.save_total_limit or len(saved))
