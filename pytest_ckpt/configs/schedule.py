"""What is taken from a configuration file, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Arguments of transformers that decide how long a run is, when it evaluates, and what it saves and keeps.
DECIDING: Final = frozenset(
    {
        *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("dataloader_drop_last", "save_strategy", "save_steps", "save_total_limit", "save_only_model"),
        *("eval_strategy", "evaluation_strategy", "eval_steps", "eval_delay", "eval_on_start", "do_eval"),
        *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
        *("logging_strategy", "logging_steps", "logging_first_step"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a configuration file says, and what was said beside it.

    Attributes:
        values: of the file, by their names in it.
        dataset_len: samples that the trainer is given; None if they are to be counted.
    """

    path: Path
    values: Mapping[str, Any]
    dataset_len: int | None = None
    world_size: int = 1

    def number(self, name: str, default: float | None = None) -> float | None:
        """Return a number of the file; YAML takes `1e-4` for a text.

        Raises:
            InvalidArgument: it is none.
        """
        value = self.values.get(name)
        if value is None:
            return default
        try:
            found = float(value)
        except (TypeError, ValueError):
            message = f"{self.path}: {name} must be a number; got {value!r}"
            raise InvalidArgument(message) from None
        return int(found) if found.is_integer() and not isinstance(value, float) else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What decides on steps and saves.

    Attributes:
        arguments: of `transformers.TrainingArguments`, only those that decide on it; a name may be of another release.
        train_len: samples to train on.
        eval_len: samples to evaluate on; 0 without an evaluation.
        patience: of early stopping, in evaluations; None without it.
        processes: among which the samples are divided; fewer than the run has where several hold one model.
        first_step: whether the first step is saved, too.
        origin: what read the file, and by whose rule, as part of a sentence.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    train_len: int
    eval_len: int = 0
    patience: int | None = None
    processes: int = 1
    first_step: bool = False
    origin: str
