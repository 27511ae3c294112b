"""Files with arguments of transformers, as `HfArgumentParser`, TRL's commands and most scripts read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.configs.lengths import SOME, counted
from pytest_ckpt.configs.schedule import DECIDING, Given, Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

#: One of these is in every such file.
_TELLING: Final = frozenset(
    {"num_train_epochs", "max_steps", "per_device_train_batch_size", "save_steps", "save_strategy"}
)


def recognises(values: Mapping[str, Any]) -> bool:
    """Say whether a file has such arguments; what else is in it belongs to the script."""
    return not _TELLING.isdisjoint(values)


def schedule(given: Given) -> Schedule:
    """Return the arguments that decide on steps and saves.

    Raises:
        InvalidArgument: it is not known how long the data set is.
    """
    arguments = {name: value for name, value in given.values.items() if name in DECIDING}
    why = "these are arguments of transformers, and the data set is the script's own"
    by_epochs = any(
        given.values.get(name) == "epoch" for name in ("save_strategy", "eval_strategy", "evaluation_strategy")
    )
    if float(given.number("max_steps", -1) or -1) > 0 and given.dataset_len is None and not by_epochs:
        length = _enough_for(given)
    else:
        length = counted(given, [], why_not=why)
    return Schedule(
        arguments=arguments,
        train_len=length,
        eval_len=SOME,
        processes=given.world_size,
        origin="read as arguments of transformers, by its own rules",
    )


def _enough_for(given: Given) -> int:
    """Return a length at which `max_steps` is one epoch, for a run whose steps are given."""
    each = float(given.number("per_device_train_batch_size", 8) or 8)
    each *= float(given.number("gradient_accumulation_steps", 1) or 1)
    return int(float(given.number("max_steps") or 1) * each * given.world_size)
