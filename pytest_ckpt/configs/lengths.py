"""How many samples a run trains on and evaluates on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_ckpt.configs.files import count_samples
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_ckpt.configs.schedule import Given

#: Where it is not known how many samples there are to evaluate on; how many does not decide anything.
SOME = 8


def counted(given: Given, files: Sequence[Path], *, at_most: float | None = None, why_not: str = "") -> int:
    """Return how many samples there are, as was said or as the files hold.

    Args:
        files: all files of data that the configuration names.
        at_most: how many are taken of each file.
        why_not: why counting would not tell how many samples a trainer is given; empty if it does.

    Raises:
        InvalidArgument: that is not known.
    """
    if given.dataset_len is not None:
        return given.dataset_len
    known = [count_samples(file) for file in files]
    if not why_not and known and None not in known:
        return int(sum(min(length, at_most or length) for length in known if length is not None))
    unknown = [str(file) for file, length in zip(files, known, strict=True) if length is None]
    reason = why_not or (
        f"{', '.join(unknown)} {'is' if len(unknown) == 1 else 'are'} not here, or of no kind that can be counted"
        if unknown
        else "the configuration names no data that is here"
    )
    message = (
        f"{given.path} does not tell how many samples the trainer is given: {reason}. Give dataset_len (--dataset-len on the "
        "command line): the number of samples after any split for validation, filter and packing, for all processes together."
    )
    raise InvalidArgument(message)


def split(total: int, share: float) -> tuple[int, int]:
    """Return how many of `total` samples `datasets.train_test_split` leaves for training, and how many for evaluation.

    Args:
        share: for evaluation; a number of samples from 1 on, a fraction below.
    """
    held_out = int(share) if share >= 1 else math.ceil(share * total)
    return total - held_out, held_out
