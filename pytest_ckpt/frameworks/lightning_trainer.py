"""Lightning's `Trainer`, of the package `lightning` and of `pytorch_lightning`, and what `ModelCheckpoint` saves."""

from __future__ import annotations

import functools
import math
import os
import re
import sys
import weakref
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.frameworks import lightning_advice, lightning_saving
from pytest_ckpt.frameworks.protocol import Found
from pytest_ckpt.records.run import BestModel, FrameworkFacts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType, ModuleType

    from pytest_ckpt.frameworks.protocol import Observer, Rehearsing, Start
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Tree
    from pytest_ckpt.records.verdict import Advice

_SUFFIX: Final = ".ckpt"
_STEP: Final = re.compile(r"(?:^|[^a-z])step=(\d+)")
#: Attributes of a ModelCheckpoint that decide what it saves, by the names of its arguments.
_CALLBACK_SETTINGS: Final = (
    "every_n_train_steps",
    "every_n_epochs",
    "train_time_interval",
    "monitor",
    "mode",
    "save_top_k",
    "save_last",
    "save_weights_only",
    "save_on_train_epoch_end",
    "save_on_exception",
    "filename",
)
_TRAINER_SETTINGS: Final = (
    "max_steps",
    "max_epochs",
    "accumulate_grad_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "num_training_batches",
)


class LightningTrainer:
    """The adapter for `lightning.pytorch.Trainer`, or for that of `pytorch_lightning`.

    Args:
        package: which of the two.
    """

    def __init__(self, package: str = "lightning.pytorch") -> None:
        self._package = package
        self.name: Final = package.partition(".")[0]
        self.module: Final = f"{package}.trainer.trainer"
        self._saved_by_job: weakref.WeakSet[Any] = weakref.WeakSet()

    # -- in the job's process ----------------------------------------------------------------------------------------

    def attach(self, module: ModuleType, observer: Observer) -> None:
        """Have every Trainer, whenever it was built, tell of its steps and saves while it fits."""
        fit, save = module.Trainer.fit, module.Trainer.save_checkpoint
        scores: weakref.WeakKeyDictionary[Any, dict[int, float]] = weakref.WeakKeyDictionary()
        callback_type = _callback_type(sys.modules[f"{self._package}.callbacks"], self._facts, observer)

        @functools.wraps(fit)
        def told_fit(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            observer.expect_told()
            _change(trainer, observer.changes)
            callback = callback_type()
            scores[trainer] = callback.scores
            trainer.callbacks.insert(0, callback)  # those that save come last
            try:
                result = fit(trainer, *args, **kwargs)
                observer.look("train_end")
                return result
            finally:
                trainer.callbacks.remove(callback)

        @functools.wraps(save)
        def told_save(trainer: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
            observer.saving(os.fspath(filepath), self.name)
            if not _caller(sys._getframe(1)).startswith(self.name):  # noqa: SLF001 - the documented way to the caller
                self._saved_by_job.add(trainer)
            try:
                return save(trainer, filepath, *args, **kwargs)
            finally:
                observer.look("save")
                if trainer in self._saved_by_job and trainer in scores:
                    observer.framework(self._facts(trainer, observer, scores[trainer]))

        module.Trainer.fit, module.Trainer.save_checkpoint = told_fit, told_save

    def _facts(self, trainer: Any, observer: Observer, scores: Mapping[int, float]) -> FrameworkFacts:
        package = sys.modules[self._package.partition(".")[0]]
        planned = trainer.estimated_stepping_batches
        return FrameworkFacts(
            name=self.name,
            version=str(getattr(package, "__version__", "")),
            planned_steps=int(planned) if 0 < planned < math.inf else None,
            settings={**dict(_settings(trainer)), lightning_saving.BY_JOB: str(trainer in self._saved_by_job)},
            save_dir=observer.relative(_save_dir(trainer)),
            best=_best(trainer, observer, scores),
        )

    def warm_up(self, module: ModuleType) -> None:
        """Compute nothing: what a process of Lightning does at its start is cheap."""

    def drives(self, trainer: object) -> bool:
        """Say whether it is a Trainer of this package or of a class derived from it."""
        return any(kind.__name__ == "Trainer" and kind.__module__ == self.module for kind in type(trainer).__mro__)

    def train(self, trainer: Any, resume_from: Start, max_steps: int | None, *args: Any, **kwargs: Any) -> object:
        """Call the trainer's own `fit` with the model and the data in `args`."""
        if max_steps is not None and not 0 <= trainer.max_steps <= max_steps:
            trainer.fit_loop.epoch_loop.max_steps = max_steps
        trainer.fit(*args, **kwargs, ckpt_path="last" if resume_from is True else resume_from)
        return trainer

    def rehearse(self, trainer: Any, asked: Rehearsing, *args: Any, **kwargs: Any) -> object:
        """Call the trainer's own `fit` with the model and the data in `args`, and with stand-ins for what only computes."""
        from pytest_ckpt.frameworks import lightning_rehearsal  # few jobs need it

        return lightning_rehearsal.rehearse(trainer, asked, *args, **kwargs)

    # -- in the pytest process ---------------------------------------------------------------------------------------

    def find(self, tree: Tree, save_dir: str) -> tuple[Found, ...]:
        """Return everything below the directory that is named `*.ckpt`, with the number after `step=`."""
        found = []
        for entry in tree.entries if save_dir == "." else tree.under(save_dir):
            name = PurePosixPath(entry.path).name
            if name.endswith(_SUFFIX) and entry.kind != "link":
                step = _STEP.search(name)
                found.append(Found(path=entry.path, claimed=int(step[1]) if step else None))
        return tuple(found)

    def expected_count(self, facts: FrameworkFacts, run: RunRecord) -> int | None:
        """Return how many numbered checkpoints one ModelCheckpoint promises that saves every so many steps."""
        return lightning_saving.expected_count(facts, run)

    def promised_steps(self, facts: FrameworkFacts, run: RunRecord) -> frozenset[int] | None:
        """Return the steps that callbacks with an interval of steps save."""
        return lightning_saving.promised_steps(facts, run)

    def required_files(self, checkpoint: Checkpoint, facts: FrameworkFacts) -> tuple[str, ...]:
        """Return nothing but the name of the checkpoint: it is one file."""
        del facts
        return (PurePosixPath(checkpoint.path).name,) if checkpoint.files == (checkpoint.path,) else ()

    def advise(self, component: str, checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
        """Name what Lightning does not save, and the settings by which a save is missed."""
        return lightning_advice.component(component, checkpoint, facts)

    def advise_missing_final(self, facts: FrameworkFacts, run: RunRecord) -> Advice:
        """Explain by the callback's settings why the last step is not saved."""
        return lightning_advice.missing_final(facts, run)


def _change(trainer: Any, changes: Mapping[str, object]) -> None:
    """Give settings of the ModelCheckpoint callbacks other values."""
    for name, value in changes.items():
        callbacks = [callback for callback in _model_checkpoints(trainer) if name in _CALLBACK_SETTINGS]
        if not callbacks:
            message = (
                f"no ModelCheckpoint of this Trainer has a setting {name!r}; known are {', '.join(_CALLBACK_SETTINGS)}"
            )
            raise InvalidArgument(message)
        for callback in callbacks:
            setattr(callback, f"_{name}" if hasattr(callback, f"_{name}") else name, value)


def _callback_type(callbacks: ModuleType, facts_of: Any, observer: Observer) -> Any:
    """Return a callback class that tells the observer; it needs the framework's base class, so it is made here."""

    class Teller(callbacks.Callback):  # type: ignore[name-defined,misc]
        """Tells of steps."""

        def __init__(self) -> None:
            self._told = 0
            self.scores: dict[int, float] = {}

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            del pl_module
            self._told = trainer.global_step
            observer.framework(facts_of(trainer, observer, self.scores))

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step != self._told:  # not within an accumulation
                self._told = trainer.global_step
                observer.end_step(claimed=self._told)

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            del pl_module
            monitor = _monitor(trainer)
            if monitor is not None and not trainer.sanity_checking and monitor in trainer.callback_metrics:
                self.scores[trainer.global_step] = float(trainer.callback_metrics[monitor])

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            del pl_module
            observer.framework(facts_of(trainer, observer, self.scores))

    return Teller


def _caller(frame: FrameType | None) -> str:
    """Return the module that calls, whatever of this package lies between."""
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(__name__.partition(".")[0]):
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _model_checkpoints(trainer: Any) -> list[Any]:
    """Return the callbacks that save by a schedule; others, such as OnExceptionCheckpoint, have no settings for that."""
    return [callback for callback in trainer.checkpoint_callbacks if hasattr(callback, "save_top_k")]


def _settings(trainer: Any) -> Iterator[tuple[str, str]]:
    for name in _TRAINER_SETTINGS:
        yield name, str(getattr(trainer, name, ""))
    yield "callbacks", " ".join(type(callback).__name__ for callback in trainer.callbacks)
    yield "optimizers", str(len(trainer.optimizers))
    yield "automatic_optimization", str(trainer.lightning_module.automatic_optimization)
    for number, callback in enumerate(_model_checkpoints(trainer), start=1):
        for name in _CALLBACK_SETTINGS:
            yield (
                f"{lightning_saving.label(number)}.{name}",
                str(getattr(callback, f"_{name}", getattr(callback, name, None))),
            )


def _save_dir(trainer: Any) -> str:
    """Return the directory below which all callbacks save."""
    given = [getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks]
    folders = [os.path.abspath(folder) for folder in given if folder]  # noqa: PTH100 - links stay
    return os.path.commonpath(folders) if folders else str(trainer.default_root_dir)


def _monitor(trainer: Any) -> str | None:
    """Return the metric of the first callback that has one."""
    return next((callback.monitor for callback in _model_checkpoints(trainer) if callback.monitor), None)


def _best(trainer: Any, observer: Observer, scores: Mapping[int, float]) -> BestModel | None:
    """Return the evaluations so far, and which checkpoint counts as the best of them."""
    callback = next((callback for callback in _model_checkpoints(trainer) if callback.monitor), None)
    if callback is None:
        return None
    path = observer.relative(callback.best_model_path) if callback.best_model_path else None
    return BestModel(metric=callback.monitor, mode=callback.mode, scores=dict(scores), path=path)
