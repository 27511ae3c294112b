"""What is saved by the time is saved where the real run does: each step of a rehearsal moves the clock on by as long as told."""

from __future__ import annotations

import math
import sys
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import TrainerCallback

pytest.importorskip("freezegun")
pytest.importorskip("lightning.pytorch")
from jobs import hf, pl
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps
from pytest_ckpt.errors import HarnessError, InvalidArgument
from pytest_ckpt.frameworks.stand_in_clock import Clock
from pytest_ckpt.runs.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conftest import Judge

pytestmark = pytest.mark.filterwarnings("default")  # Lightning has deprecations of its own

PACKAGE: Final = "lightning.pytorch"
HALF_AN_HOUR: Final = timedelta(minutes=30)


# -- Lightning ---------------------------------------------------------------------------------------------------------


def fit(job: Job, *, seconds: float, saving: dict[str, Any], more: Sequence[Any] = (), **given: Any) -> None:
    """Rehearse 200 steps of a Lightning Trainer, in four epochs."""
    lightning = pytest.importorskip(PACKAGE)
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks = [pl.checkpoint(PACKAGE, save_top_k=-1, **saving), *more]
    trainer = lightning.Trainer(
        default_root_dir=job.dir, callbacks=callbacks, **{"max_epochs": 4, "num_sanity_val_steps": 0, **quiet, **given}
    )
    samples = TensorDataset(torch.zeros(200, 4), torch.zeros(200, dtype=torch.int64))
    job.rehearse(trainer, pl.model(PACKAGE), DataLoader(samples, batch_size=4), seconds_per_step=seconds)


@pytest.mark.parametrize("seconds", [20, 18.5, 1000.0, 0.5])
def test_an_interval_of_time_is_one_of_steps(judge: Judge, seconds: float) -> None:
    """A checkpoint comes with the first step that ends half an hour or more after the one before."""
    interval = math.ceil(HALF_AN_HOUR.total_seconds() / seconds)
    found = judge(partial(fit, seconds=seconds, saving={"train_time_interval": HALF_AN_HOUR}), FinalStep(), Steps())
    assert tuple(range(interval, 201, interval)) == judge.baseline.saved_steps
    lost = 200 % interval != 0
    assert ("violated" if lost else "held") == found["final_step"].status
    assert f"each step took {seconds:g} s on a fake clock" in found["final_step"].notes


def test_the_last_step_is_lost_or_saved_in_the_end(judge: Judge) -> None:
    """Two and a half hours are no multiple of an hour; what the message advises mends that, and so does a save at the end."""
    hour = {"train_time_interval": timedelta(hours=1)}
    broken = judge(partial(fit, seconds=45, saving=hour), FinalStep())["final_step"]
    assert (
        "training ended at step 200 and the newest checkpoint is of step 160: steps 161 to 200 are lost"
        in broken.sentence
    )

    callbacks = pytest.importorskip(f"{PACKAGE}.callbacks")

    class SaveAtEnd(callbacks.Callback):  # type: ignore[name-defined,misc]
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            del pl_module
            trainer.save_checkpoint(Path(trainer.default_root_dir, "end.ckpt"))

    assert "saves after every 1:00:00 of training (train_time_interval)" in broken.findings[0].cause
    second = pl.checkpoint(PACKAGE, filename="final-{step}")
    assert "held" == judge(partial(fit, seconds=45, saving=hour, more=[second]), FinalStep())["final_step"].status
    assert "held" == judge(partial(fit, seconds=45, saving=hour, more=[SaveAtEnd()]), FinalStep())["final_step"].status


def test_a_run_ends_when_its_time_is_over(judge: Judge) -> None:
    """`max_time` is a time of the same clock."""
    saving = {"every_n_train_steps": 50}
    found = judge(partial(fit, seconds=60, saving=saving, max_time=timedelta(hours=2)), FinalStep())["final_step"]
    assert 120 == judge.baseline.last_step
    assert "training ended at step 120 and the newest checkpoint is of step 100" in found.sentence


# -- transformers ------------------------------------------------------------------------------------------------------


class SavesByTime(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Has a checkpoint saved when ten minutes have gone by, by one of the clocks that Python has."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.last: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to count."""
        del args, state, control
        self.last = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a save."""
        del args, state
        now = self.clock()
        if (now - self.last) / (timedelta(seconds=1) if isinstance(now, datetime) else 1) >= 600:
            control.should_save, self.last = True, now


def rehearse(job: Job, *, clock: Any, seconds: float | None = 7.0, **given: Any) -> None:
    """Rehearse 300 steps that are saved by the time."""
    trainer = hf.trainer(job, callbacks=[SavesByTime(clock)], max_steps=300, save_strategy="no", **given)
    job.rehearse(trainer, seconds_per_step=seconds)


def by_monotonic() -> float:
    """Return the seconds of the clock that has the name at this time."""
    return time.monotonic()


@pytest.mark.parametrize(
    "clock",
    [
        pytest.param(lambda: time.time(), id="time"),  # noqa: PLW0108 - looked up at each call, as a callback does
        pytest.param(by_monotonic, id="monotonic"),
        pytest.param(lambda: time.perf_counter_ns() / 1e9, id="perf_counter_ns"),
        pytest.param(lambda: datetime.now(timezone.utc), id="datetime"),
    ],
)
def test_a_callback_that_saves_by_the_time(judge: Judge, clock: Any) -> None:
    """Ten minutes are 86 steps of seven seconds, by whichever clock."""
    found = judge(partial(rehearse, clock=clock), FinalStep(), Steps(every=86, final=False))
    assert (86, 172, 258) == judge.baseline.saved_steps
    assert ("violated", "held") == (found["final_step"].status, found["steps"].status)


def test_without_a_clock_no_time_goes_by(judge: Judge) -> None:
    """The same rehearsal takes less than ten minutes, and saves nothing."""
    found = judge(partial(rehearse, clock=by_monotonic, seconds=None), FinalStep())["final_step"]
    assert () == judge.baseline.saved_steps
    assert not any("clock" in note for note in found.notes)


def test_old_checkpoints_are_deleted_in_their_order(judge: Judge) -> None:
    """Files are dated by the real clock, by which the Trainer deletes the oldest."""
    saving: dict[str, Any] = {"max_steps": 60, "save_strategy": "steps", "save_steps": 10, "save_total_limit": 2}

    def train(job: Job) -> None:
        began = time.time()
        job.rehearse(hf.trainer(job, **saving), seconds_per_step=3600)
        dates = [path.stat().st_mtime for path in job.path.rglob("*.safetensors")]
        assert all(began - 10 < date < time.time() + 10 for date in dates)

    found = judge(train, Retention(2), Count(2))
    assert {"held"} == {verdict.status for verdict in found.values()}


# -- the clock itself --------------------------------------------------------------------------------------------------


def test_the_clock_is_put_back() -> None:
    """What follows a rehearsal in the same process has the real one; the local time zone stays."""
    before, here = time.clock_gettime(time.CLOCK_MONOTONIC), time.time
    clock = Clock(3600.0)
    with clock.running():
        frozen = time.monotonic()
        assert frozen == time.monotonic()
        clock.tick()
        assert 3600 == time.monotonic() - frozen
        assert abs(datetime.now().astimezone().timestamp() - time.time()) < 1
    clock.tick()
    assert here is time.time
    assert 0 <= time.monotonic() - before < 60


def test_modules_that_load_others_lazily_are_left_alone() -> None:
    """Listing the names of transformers would import all of it."""
    known = set(sys.modules)
    assert "transformers" in known
    with Clock(1.0).running():
        pass
    assert {name for name in set(sys.modules) - known if name.startswith("transformers")} == set()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that has it."""
    monkeypatch.setitem(sys.modules, "freezegun", None)
    with pytest.raises(HarnessError, match=r"freezegun, which is not installed; pip install pytest-ckpt\[clock\]"):
        Clock(1.0)
    Clock(None).tick()


@pytest.mark.parametrize("seconds", [0, -1.0, True, "2", float("inf"), float("nan"), 1e-9])
def test_a_step_takes_some_time(tmp_path: Path, seconds: Any) -> None:
    """Nothing else is a time of a step."""
    with pytest.raises(InvalidArgument, match=r"seconds_per_step must be how long a step of the real run takes"):
        Job(tmp_path).rehearse(None, seconds_per_step=seconds)
