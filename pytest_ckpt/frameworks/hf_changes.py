"""Giving a Trainer other settings than the job does: as it is built, where that is in the job, and as it starts to train."""

from __future__ import annotations

import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any

from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from pytest_ckpt.frameworks.protocol import Observer


def built_from_now_on(module: ModuleType, observer: Observer) -> weakref.WeakSet[Any]:
    """Return a set that each Trainer joins as it is built, with changed settings; one of a fixture is not in it."""
    built: weakref.WeakSet[Any] = weakref.WeakSet()
    original = module.Trainer.__init__

    @functools.wraps(original)
    def init(trainer: Any, *args: Any, **kwargs: Any) -> None:
        built.add(trainer)
        given = kwargs.get("args", args[1] if len(args) > 1 else None)
        if given is not None:
            _change(given, observer.changes)  # some are read here and never again, such as the size of batches
        original(trainer, *args, **kwargs)

    module.Trainer.__init__ = init
    return built


def change_built(trainer: Any, changes: Mapping[str, object]) -> None:
    """Give a Trainer that may have been built before the experiment other settings."""
    _change(trainer.args, changes)
    if "per_device_train_batch_size" in changes and hasattr(trainer, "_train_batch_size"):
        trainer._train_batch_size = trainer.args.train_batch_size  # noqa: SLF001 - read from the arguments by the constructor


def _change(args: Any, changes: Mapping[str, object]) -> None:
    for name, value in changes.items():
        if not hasattr(args, name):
            message = (
                f"TrainingArguments of transformers {sys.modules['transformers'].__version__} have no setting {name!r}"
            )
            raise InvalidArgument(message)
        setattr(args, name, value)
