"""Configurations of LLaMA-Factory: arguments of transformers, beside the names of its data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_ckpt.configs.lengths import SOME, counted, split
from pytest_ckpt.configs.schedule import DECIDING, Given, Schedule
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping


def recognises(values: Mapping[str, Any]) -> bool:
    """Say whether a file is one of LLaMA-Factory."""
    return not {"stage", "finetuning_type"}.isdisjoint(values) or {"template", "dataset"} <= values.keys()


def schedule(given: Given) -> Schedule:
    """Return the arguments that decide on steps and saves.

    Raises:
        InvalidArgument: it is not known how long the data set is, or it is trained in another loop.
    """
    if given.values.get("stage") == "ppo":
        message = (
            f"{given.path}: stage: ppo trains in a loop of its own, not in that of transformers, and can't be rehearsed"
        )
        raise InvalidArgument(message)
    total = counted(given, _files(given), at_most=given.number("max_samples"), why_not=_unknowable(given))
    share = float(given.number("val_size", 0.0) or 0.0)
    own_eval = bool(given.values.get("eval_dataset"))
    train, held_out = total, SOME if own_eval else 0
    if given.dataset_len is None:
        train, held_out = split(total, share) if share and not own_eval else (total, held_out)
    elif share:
        held_out = SOME
    patience = given.number("early_stopping_steps")
    return Schedule(
        arguments={name: value for name, value in given.values.items() if name in DECIDING},
        train_len=train,
        eval_len=held_out,
        patience=None if patience is None else int(patience),
        processes=given.world_size,
        origin="read as a configuration of LLaMA-Factory, whose arguments are those of transformers",
    )


def _unknowable(given: Given) -> str:
    packed = given.values.get("packing") or given.values.get("neat_packing")
    packed = packed or (packed is None and given.values.get("stage") == "pt")  # packed unless it is forbidden
    return "its samples are packed together by their lengths" if packed else ""


def _files(given: Given) -> list[Path]:
    """Return the local files of its data sets, as its `dataset_info.json` has them."""
    names = given.values.get("dataset") or ""
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    folder = Path(str(given.values.get("dataset_dir") or "data"))
    folders = [folder, given.path.parent / folder]
    info = next((one / "dataset_info.json" for one in folders if (one / "dataset_info.json").is_file()), None)
    if info is None:
        return [folder / name for name in names if name]
    known = json.loads(info.read_text(encoding="utf-8"))
    return [info.parent / str(known.get(name, {}).get("file_name", name)) for name in names if name]
