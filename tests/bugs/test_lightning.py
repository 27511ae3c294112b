"""Bugs of Lightning: what is saved, and what a resume does not bring back."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

pytest.importorskip("lightning.pytorch")
from jobs import pl
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import Count, FinalStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from bugs.conftest import Shows
    from pytest_ckpt import Job

pytestmark = pytest.mark.filterwarnings("default")

PACKAGE: Final = "lightning.pytorch"


def job(
    module: Callable[[], Any] | None = None, data: Callable[[], Any] | None = None, **given: Any
) -> Callable[[Job], Any]:
    """Return a job with these settings: those of ModelCheckpoint, and with `trainer_` before them those of the trainer."""
    trainer: dict[str, Any] = {
        name.removeprefix("trainer_"): value for name, value in given.items() if name.startswith("trainer_")
    }
    callback = {name: value for name, value in given.items() if not name.startswith("trainer_")}
    return lambda job: pl.fit(
        PACKAGE,
        job,
        pl.checkpoint(PACKAGE, **callback),
        module=module() if module else None,
        data=data() if data else None,
        **trainer,
    )


def validated(scores: Callable[[int], float] = lambda epoch: 0.1 + epoch, **given: Any) -> Callable[[Job], Any]:
    """Return a job that validates after each epoch, with the scores of these epochs."""
    return job(lambda: pl.model(PACKAGE, scores=scores), trainer_validation=pl.loader(), **given)


def slow_writer(**given: Any) -> Callable[[Job], Any]:
    """Return a job whose checkpoints are written by a thread that takes its time."""

    def train(job: Job) -> None:
        plugins = importlib.import_module(f"{PACKAGE}.plugins.io")

        class Slow(plugins.TorchCheckpointIO):  # type: ignore[name-defined,misc]
            """Waits before it writes."""

            def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
                """Write what is in memory by then."""
                time.sleep(0.5)
                super().save_checkpoint(*args, **kwargs)

        pl.fit(PACKAGE, job, pl.checkpoint(PACKAGE, **given), plugins=[plugins.AsyncCheckpointIO(Slow())])

    return train


def test_pl_01_a_thread_saves_what_has_changed_since(shows: Shows) -> None:
    """AsyncCheckpointIO hands the live tensors to its thread, which writes them later."""
    shows("PL-01", slow_writer(every_n_train_steps=5, save_top_k=-1), Faithful())


def test_pl_01_saved_at_once(shows: Shows) -> None:
    """Written at once, each file holds its step."""
    shows.not_with(job(every_n_train_steps=5, save_top_k=-1), Faithful(), FinalStep())


def test_pl_02_a_batch_more_after_a_save_every_so_many_steps(shows: Shows) -> None:
    """The count of batches is one behind in a checkpoint of steps, also where the step is the last of an epoch."""
    shows("PL-02", job(every_n_train_steps=5, save_top_k=-1), Resumable(steps=[5]))


def test_pl_04_scheduler_steps_twice(shows: Shows) -> None:
    """After a save at the end of a validation the scheduler of epochs is stepped once more."""
    shows("PL-04", validated(save_top_k=-1, save_on_train_epoch_end=False), Resumable(steps=[5]))


def test_pl_02_04_the_end_of_an_epoch(shows: Shows) -> None:
    """A checkpoint of the end of an epoch is resumed exactly."""
    shows.not_with(validated(save_top_k=-1, save_on_train_epoch_end=True), Resumable())


def test_pl_05_last_is_not_the_last(shows: Shows) -> None:
    """With save_last=True `last.ckpt` is only written together with another checkpoint."""
    shows("PL-05", validated(monitor="score", save_top_k=1, save_last=True), FinalStep())


def test_pl_05_a_second_callback(shows: Shows) -> None:
    """A second ModelCheckpoint without a metric saves the last step."""

    def train(job: Job) -> None:
        callbacks = pl.checkpoint(PACKAGE, monitor="score"), pl.checkpoint(PACKAGE, filename="final-{step}")
        module = pl.model(PACKAGE, scores=lambda epoch: 0.1 + epoch)
        pl.fit(PACKAGE, job, *callbacks, module=module, validation=pl.loader())

    shows.not_with(train, FinalStep())


def test_pl_07_saves_that_wait_for_a_metric(shows: Shows) -> None:
    """What is due before the first validation has logged the metric is never saved."""
    shows("PL-07", validated(monitor="score", every_n_train_steps=2, save_top_k=-1, trainer_max_epochs=2), Count(None))


def test_pl_07_without_a_metric(shows: Shows) -> None:
    """Without a monitor every second step is saved."""
    shows.not_with(validated(every_n_train_steps=2, save_top_k=-1, trainer_max_epochs=2), Count(None), Count(5))


def test_pl_10_the_place_in_an_epoch(shows: Shows) -> None:
    """A resume within an epoch starts again at the first batch of the loader."""
    shows("PL-10", job(every_n_train_steps=7, save_top_k=-1), Resumable(steps=[7]))


def test_pl_10_a_loader_that_remembers_it(shows: Shows) -> None:
    """A stateful loader goes on where it was."""
    if pl.VERSION >= (2, 5):
        given: dict[str, Any] = {
            "every_n_train_steps": 7,
            "save_top_k": -1,
            "trainer_max_epochs": -1,
            "trainer_max_steps": 12,
        }
        shows.not_with(job(data=pl.PositionLoader, **given), Resumable(steps=[7]))


def test_pl_11_the_random_states(shows: Shows) -> None:
    """Dropout draws other numbers after a resume."""
    given: dict[str, Any] = {"every_n_epochs": 1, "save_top_k": -1}
    shows("PL-11", job(lambda: pl.model(PACKAGE, dropout=0.5), **given), Resumable(steps=[5]))


def test_pl_11_a_callback_saves_them(shows: Shows) -> None:
    """A callback whose state they are brings them back."""

    def train(job: Job) -> None:
        callbacks = pl.random_states(PACKAGE), pl.checkpoint(PACKAGE, every_n_epochs=1, save_top_k=-1)
        pl.fit(PACKAGE, job, *callbacks, module=pl.model(PACKAGE, dropout=0.5))

    if pl.VERSION >= (2, 5):
        shows.not_with(train, Resumable())


def test_pl_12_half_of_an_accumulation(shows: Shows) -> None:
    """A checkpoint of a validation in the midst of an accumulation holds no gradients."""
    given: dict[str, Any] = {"save_top_k": -1, "save_on_train_epoch_end": False, "filename": "{epoch}-{step}"}
    trainer: dict[str, Any] = {
        "trainer_accumulate_grad_batches": 4,
        "trainer_val_check_interval": 5,
        "trainer_max_epochs": 2,
    }
    shows("PL-12", validated(**given, **trainer, data=lambda: pl.loader(batch_size=2)), Resumable(steps=[1]))


def test_pl_12_whole_accumulations(shows: Shows) -> None:
    """Saved at the end of an epoch, after its last accumulation, nothing is missing."""
    given: dict[str, Any] = {"every_n_epochs": 1, "save_top_k": -1}
    shows.not_with(job(**given, trainer_accumulate_grad_batches=4), Resumable())


def averaging(*, saves: bool) -> Callable[[Job], None]:
    """Return a job that puts the average of the last epochs into the model in the end, and saves that or not."""

    def train(job: Job) -> None:
        average = importlib.import_module(f"{PACKAGE}.callbacks").StochasticWeightAveraging(0.01, swa_epoch_start=1)
        checkpoint = pl.checkpoint(PACKAGE, every_n_epochs=1, save_top_k=-1)
        trainer = pl.fit(PACKAGE, job, average, checkpoint, module=pl.model(PACKAGE, norm=False), max_epochs=4)
        if saves:
            trainer.save_checkpoint(job.path / "final.ckpt")

    return train


def test_pl_14_the_average_is_not_saved(shows: Shows) -> None:
    """StochasticWeightAveraging changes the model after the last save of ModelCheckpoint."""
    shows("PL-14", averaging(saves=False), FinalStep())


def test_pl_14_saved_after_fit(shows: Shows) -> None:
    """Saved by hand once more, the model that fit returns is on disk."""
    shows.not_with(averaging(saves=True), FinalStep())


def test_pl_15_two_optimizers_count_twice(shows: Shows) -> None:
    """By hand and with two optimizers, every_n_train_steps=5 saves every fifth batch, at 10, 20 and 30."""
    shows("PL-15", job(lambda: pl.two_optimizers(PACKAGE), every_n_train_steps=5, save_top_k=-1), Count(None))


def test_pl_15_a_multiple_of_both(shows: Shows) -> None:
    """A multiple of the number of optimizers is met as it says."""
    shows.not_with(job(lambda: pl.two_optimizers(PACKAGE), every_n_train_steps=10, save_top_k=-1), Count(None))


def test_pl_22_an_epoch_s_end_with_max_steps(shows: Shows) -> None:
    """With max_steps a checkpoint of the end of an epoch is resumed before that end."""
    shows("PL-22", job(every_n_epochs=1, save_top_k=-1, trainer_max_steps=13), Resumable(steps=[10]))


def test_pl_22_without_max_steps(shows: Shows) -> None:
    """With max_epochs alone it is resumed exactly."""
    shows.not_with(job(every_n_epochs=1, save_top_k=-1), Resumable())
