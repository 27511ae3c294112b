"""Reading live tensors, optimizers and random generators of a training process without disturbing it."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import torch

from pytest_ckpt.checkpoints.digest import Unreadable, cast_digests, tensor_digest
from pytest_ckpt.records.state import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Entries of a parameter group that choose an implementation or are derived, not what is computed.
_NOT_HYPERPARAMETERS: Final = frozenset(
    {"params", "lr", "initial_lr", "foreach", "fused", "capturable", "differentiable", "param_names"}
)
_DEPTH: Final = 6


def read_tensor(tensor: torch.Tensor, *, casts: bool = False) -> Reading:
    """Return the reading of one tensor; a single element reads as a scalar, so that 5 and tensor(5.) agree."""
    try:
        if tensor.dim() == 0:
            return read_scalar(tensor.item())
        return Reading(
            digest=tensor_digest(tensor),
            norm=_norm(tensor),
            shape=tuple(tensor.shape),
            alike=cast_digests(tensor) if casts else (),
        )
    except Unreadable as error:
        return Reading(unreadable=str(error))
    except RuntimeError as error:  # a tensor subclass that refuses a basic operation must not break the job
        return Reading(unreadable=f"{type(tensor).__name__}: {error}".splitlines()[0])


def _norm(tensor: torch.Tensor) -> float | None:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return None
    with torch.no_grad():
        return float(torch.linalg.vector_norm(tensor.detach(), dtype=_norm_dtype(tensor)))


def _norm_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def read_scalar(value: object) -> Reading:
    """Return the reading of a number or text; an int and the equal float read alike."""
    if isinstance(value, (bool, str, type(None))):
        return Reading(digest=repr(value))
    if isinstance(value, (int, float)):
        return Reading(digest=repr(float(value)))
    return Reading(digest=repr(value))


def read_tree(value: object, *, casts: bool = False) -> Iterator[tuple[str, Reading]]:
    """Yield the readings of all tensors and numbers in nested containers, by path."""
    for path, leaf in leaves(value):
        yield path, read_tensor(leaf, casts=casts) if isinstance(leaf, torch.Tensor) else read_scalar(leaf)


def leaves(value: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield tensors, numbers and texts in nested mappings, lists and tuples, by path."""
    if isinstance(value, (torch.Tensor, bool, int, float, str)):
        yield prefix, value
    elif depth < _DEPTH and isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif depth < _DEPTH and isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{prefix}.{index}" if prefix else str(index), depth + 1)


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, Reading]:
    """Return readings of an optimizer's state by `parameter/entry`; `names` maps `id(parameter)` to its name."""
    readings: dict[str, Reading] = {}
    for group_index, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if parameter in optimizer.state:
                name = names.get(id(parameter), f"group{group_index}.{index}")
                for path, reading in read_tree(optimizer.state[parameter]):
                    readings[f"{name}/{path}"] = reading
    return readings


def hyperparameters(optimizer: torch.optim.Optimizer) -> dict[str, Reading]:
    """Return the settings of each parameter group that decide what an update computes, the learning rate left out."""
    return {
        f"group{index}/{path}": reading
        for index, group in enumerate(optimizer.param_groups)
        for path, reading in read_tree({key: group[key] for key in group if key not in _NOT_HYPERPARAMETERS})
    }


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, Reading]:
    """Return the learning rate of each parameter group."""
    return {
        f"group{index}": read_scalar(float(group["lr"]))
        for index, group in enumerate(optimizer.param_groups)
        if group.get("lr") is not None
    }


def parameters_of(optimizer: torch.optim.Optimizer) -> Iterable[torch.Tensor]:
    """Yield the parameters that an optimizer updates, in order."""
    for group in optimizer.param_groups:
        yield from group["params"]


def random_states() -> dict[str, Reading]:
    """Return digests of the states of all global random generators of the process."""
    readings = {"torch": read_tensor(torch.get_rng_state()), "python": _digest(repr(random.getstate()))}
    if "numpy" in sys.modules:
        import numpy as np  # only where the job uses it

        with np.printoptions(threshold=sys.maxsize):
            readings["numpy"] = _digest(repr(np.random.get_state()))  # noqa: NPY002 - the global generator may be used
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            readings[f"cuda:{index}"] = read_tensor(state)
    return readings


def _digest(text: str) -> Reading:
    return Reading(digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
