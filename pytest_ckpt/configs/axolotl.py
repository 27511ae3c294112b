"""Configurations of Axolotl, by the rules of its releases.

Sources, read in the released packages 0.5.2, 0.8.0, 0.10.0 and 0.19.0: `normalize_config` (intervals from `saves_per_epoch` and
`evals_per_epoch`), the trainer builders (strategies, limit, best model) and `calculate_total_num_steps`. The interval is that
of 0.4.0, too, where this project began.
"""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.configs.lengths import SOME, counted, split
from pytest_ckpt.configs.schedule import Given, Schedule
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The first release of transformers that goes with an Axolotl which counts the steps by itself: 0.10.0 takes 4.52.3, and
#: 0.8.0, which leaves them to the Trainer, 4.50.3.
_COUNTS_STEPS: Final = (4, 52)
#: How many checkpoints are kept where the configuration does not say it.
_KEPT: Final = 4
_TELLING: Final = frozenset({"base_model", "datasets", "saves_per_epoch", "evals_per_epoch", "num_epochs"})


def recognises(values: Mapping[str, Any]) -> bool:
    """Say whether a file is one of Axolotl."""
    return "micro_batch_size" in values or len(_TELLING.intersection(values)) > 1


def schedule(given: Given) -> Schedule:
    """Return what Axolotl gives its trainer.

    Raises:
        InvalidArgument: it is not known how long the data set is, or the configuration contradicts itself.
    """
    _check(given)
    train, held_out = _lengths(given)
    arguments, origin = by_axolotl(given, train, held_out)
    if arguments is None:
        arguments, rule = by_rule(given, train, held_out)
        origin = f"{rule}; {origin}"
    patience = given.number("early_stopping_patience")
    return Schedule(
        arguments=arguments,
        train_len=train,
        eval_len=held_out,
        patience=int(patience) if patience else None,
        processes=_processes(given),
        first_step=bool(given.values.get("save_first_step")),
        origin=f"read as a configuration of Axolotl, {origin}",
    )


def by_axolotl(given: Given, train: int, held_out: int) -> tuple[dict[str, Any] | None, str]:
    """Return what Axolotl itself makes of it, and that it did; None, and why, where it can't.

    Raises:
        InvalidArgument: Axolotl refuses the configuration.
    """
    try:
        release = metadata.version("axolotl")
    except metadata.PackageNotFoundError:
        return None, "Axolotl is not installed here"
    if given.values.get("rl") or given.values.get("reward_model"):
        return None, f"the builder of Axolotl {release} for this kind of training needs its data"
    from pytest_ckpt.configs.axolotl_own import resolve

    try:
        found = resolve(given.values, train_len=train, held_out=held_out, world_size=given.world_size)
    except ValueError as error:  # so its validation says no
        said = " ".join(str(error).split())
        message = f"{given.path}: Axolotl {release} refuses this configuration: {said}"
        raise InvalidArgument(message) from None
    except Exception as error:  # noqa: BLE001 - whatever keeps it from working here
        said = next(iter(str(error).splitlines()), "")
        return None, f"Axolotl {release} could not read it here ({type(error).__name__}: {said})"
    return found, f"resolved by Axolotl {release} itself"


def by_rule(given: Given, train: int, held_out: int) -> tuple[dict[str, Any], str]:
    """Return what the release that goes with the installed transformers makes of it, and which that is."""
    own_count = _counts_steps()
    arguments = {**_batches(given), **_length(given, train, own_count=own_count), **_saves(given)}
    arguments |= _evaluations(given, own_count=own_count) if held_out else {"eval_strategy": "no"}
    arguments["load_best_model_at_end"] = bool(held_out) and _loads_best(given, arguments)
    return arguments, f"by the rules of {'0.10 to 0.19' if own_count else '0.4 to 0.8'}"


def _counts_steps() -> bool:
    """Say whether the Axolotl that goes with the installed transformers works out the number of steps by itself."""
    installed = metadata.version("transformers").split(".")
    return (int(installed[0]), int(installed[1])) >= _COUNTS_STEPS


def _check(given: Given) -> None:
    for often, every in (("saves_per_epoch", "save_steps"), ("evals_per_epoch", "eval_steps")):
        if given.values.get(often) and given.values.get(every):
            message = f"{given.path}: {every} and {often} exclude each other, and Axolotl refuses both; leave out one"
            raise InvalidArgument(message)


# -- how long the run is -----------------------------------------------------------------------------------------------


def _lengths(given: Given) -> tuple[int, int]:
    """Return how many samples there are to train on, and to evaluate on."""
    share = float(given.number("val_set_size", 0.0) or 0.0)
    tested = bool(given.values.get("test_datasets"))
    why_not = ""
    if any(map(_in_part, given.values.get("datasets") or [])):
        why_not = "a part of a data set is taken"
    if given.values.get("sample_packing"):
        why_not = "sample_packing is on, and how many packed samples there are depends on their lengths"
    total = counted(given, _files(given), why_not=why_not)
    if given.dataset_len is None and share and not tested:
        return split(total, share)
    return total, SOME if share or tested else 0


def _in_part(entry: Mapping[str, Any]) -> bool:
    """Say whether only a part of a file is taken."""
    return "[" in str(entry.get("split") or "") or bool(entry.get("shards") or entry.get("preprocess_shards"))


def _files(given: Given) -> list[Path]:
    """Return the local files of its data sets."""
    named: list[Path] = []
    for entry in given.values.get("datasets") or []:
        files = entry.get("data_files") or entry.get("path") or ""
        for file in [files] if isinstance(files, str) else files:
            path = Path(str(file))
            named.append(path if path.is_file() else given.path.parent / path)
    return named


def _batches(given: Given) -> dict[str, Any]:
    """Return the size of a batch and the accumulation: `batch_size` decides on it only where that is set to nothing."""
    size, name = int(given.number("micro_batch_size") or 1), "gradient_accumulation_steps"
    together = given.number("batch_size") if name in given.values else None
    accumulated = given.number(name) or (together // size if together else 1)
    return {"per_device_train_batch_size": size, name: int(accumulated)}


def _processes(given: Given) -> int:
    """Return among how many processes the samples are divided: those that hold one model together count as one."""
    together = int(given.number("context_parallel_size", 1) or 1) * int(given.number("tensor_parallel_size", 1) or 1)
    return max(given.world_size // together, 1)


def _factor(given: Given) -> int:
    """Return how many times its own batch Axolotl counts as one step: not at all where DDP is switched off."""
    parallel = given.values.get("fsdp") or given.values.get("fsdp_config") or given.values.get("ddp", True) is not False
    return _processes(given) if parallel else 1


def _length(given: Given, samples: int, *, own_count: bool) -> dict[str, Any]:
    """Return the epochs, and the steps where they are said or worked out."""
    epochs = given.number("num_epochs", 1) or 1
    batches = _batches(given)
    together = batches["per_device_train_batch_size"] * batches["gradient_accumulation_steps"] * _factor(given)
    counted_steps = math.ceil(samples * epochs / together)
    asked = given.number("max_steps")
    if asked and asked > 0:
        return {"num_train_epochs": epochs, "max_steps": int(asked if own_count else min(asked, counted_steps))}
    return {"num_train_epochs": epochs, "max_steps": counted_steps if own_count else -1}


# -- what is saved, and when is evaluated ------------------------------------------------------------------------------


def _interval(given: Given, often: str, every: str) -> float | None:
    """Return the interval that is said, or a fraction of the run by how often an epoch it is to happen."""
    times = given.number(often)
    if not times:
        return given.number(every)
    share = 1.0 / (times * float(given.number("num_epochs", 1) or 1))
    return share if share < 1 else None


def _saves(given: Given) -> dict[str, Any]:
    interval = _interval(given, "saves_per_epoch", "save_steps")
    strategy = given.values.get("save_strategy")
    found = {"save_total_limit": int(given.number("save_total_limit") or _KEPT)}
    if given.values.get("save_only_model") is not None:
        found["save_only_model"] = bool(given.values["save_only_model"])
    if interval:
        return {**found, "save_strategy": "steps", "save_steps": interval}
    return {**found, "save_strategy": "epoch" if strategy is None else strategy}


def _evaluations(given: Given, *, own_count: bool) -> dict[str, Any]:
    interval = _interval(given, "evals_per_epoch", "eval_steps")
    strategy = given.values.get("eval_strategy", given.values.get("evaluation_strategy"))
    at_start = {"eval_on_start": True} if own_count else {}
    metric = {
        name: given.values[name] for name in ("metric_for_best_model", "greater_is_better") if given.values.get(name)
    }
    if interval:
        return {**metric, **at_start, "eval_strategy": "steps", "eval_steps": interval}
    if strategy is not None:
        return {**metric, **at_start, "eval_strategy": strategy}
    return {**metric, "eval_strategy": "no" if own_count else "epoch"}


def _loads_best(given: Given, arguments: Mapping[str, Any]) -> bool:
    """Say whether the best model is loaded when training ends; where it is not said, Axolotl does so to stop early."""
    wanted = given.values.get("load_best_model_at_end") or given.values.get("early_stopping_patience")
    if given.values.get("rl") or given.values.get("reward_model"):  # their builder knows nothing of it
        return False
    saves, evaluates = arguments.get("save_steps"), arguments.get("eval_steps")
    return bool(wanted and saves and evaluates and saves % evaluates == 0)
