"""How everything here is made: from a seed of its own, quietly, and leaving the caller's process as it was."""

from __future__ import annotations

import logging
import random
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.tiny.layout import SMALLEST_VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_LARGEST_NUMPY_SEED: Final = 2**32


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch, numpy and random for the block, on the CPU, and put all three back afterwards.

    The generators of accelerators are left alone: what is made here is made on the CPU and moved. (`torch.manual_seed`
    would reach them, even before they are in use.)
    """
    import torch

    python_state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]), _seeded_numpy(seed):
            random.seed(seed)
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        random.setstate(python_state)


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    try:
        import numpy as np
    except ImportError:  # torch runs without it
        yield
        return
    state = np.random.get_state()  # noqa: NPY002 - the global state is what others draw from
    try:
        np.random.seed(seed % _LARGEST_NUMPY_SEED)  # noqa: NPY002
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what transformers says about default configurations: nobody wrote them, so nobody can act on it."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def checked(name: str, value: object, *, least: int) -> int:
    """Return `value` if it is an integer of at least `least`, else say what the argument `name` must be."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"{name} is {value!r}, but must be an integer of at least {least}."
        raise InvalidArgument(message)
    return value


def checked_vocabulary(vocab_size: object) -> int:
    """Return `vocab_size` if the special tokens and a few others fit in."""
    return checked("vocab_size", vocab_size, least=SMALLEST_VOCABULARY)


def checked_device(device: str) -> torch.device:
    """Return the device, or say why nothing can be put there."""
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        message = (
            f"device is {device!r}, but torch {torch.__version__} cannot use it here ({str(error).splitlines()[0]}). "
            'Ask for "cpu", or run where that device is.'
        )
        raise InvalidArgument(message) from error
    return found
