"""Reading live tensors, optimizers and random generators of a training process without disturbing it."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import torch

from pytest_ckpt.checkpoints.digest import Unreadable, cast_digests, tensor_digest
from pytest_ckpt.records.state import Reading

#: Entries of a parameter group that choose an implementation or are derived, not what is computed.
_NOT_HYPERPARAMETERS: Final = frozenset(
    {"params", "lr", "initial_lr", "foreach", "fused", "capturable", "differentiable", "param_names"}
)
_DEPTH: Final = 6


def read_tensor(tensor: torch.Tensor, *, casts: bool = False) -> Reading:
    """Return the reading of one tensor; a single element reads as a scalar, so that 5 and tensor(5.) agree."""
    return read_tensors({"": tensor}, casts=casts)[""]


def read_tensors(tensors: Mapping[str, torch.Tensor], *, casts: bool = False) -> dict[str, Reading]:
    """Return the readings of several tensors by name; much faster than one by one."""
    norms = _norms(tensors)
    return {name: _reading(tensor, norms.get(name), casts=casts) for name, tensor in tensors.items()}


def _reading(tensor: torch.Tensor, norm: float | None, *, casts: bool) -> Reading:
    try:
        if tensor.dim() == 0:
            return read_scalar(tensor.item())
        digest, alike = tensor_digest(tensor), cast_digests(tensor) if casts else ()
        return Reading(digest=digest, norm=norm, shape=tuple(tensor.shape), alike=alike)
    except Unreadable as error:
        return Reading(unreadable=str(error))
    except RuntimeError as error:  # a tensor subclass that refuses a basic operation must not break the job
        return Reading(unreadable=f"{type(tensor).__name__}: {error}".splitlines()[0])


def _norms(tensors: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the norms of the floating tensors; of none if one of them can't be computed with."""
    plain = {name: tensor for name, tensor in tensors.items() if _has_norm(tensor)}
    if not plain:
        return {}
    try:
        with torch.no_grad():
            norms = torch._foreach_norm([tensor.detach() for tensor in plain.values()])  # noqa: SLF001 - one call for all
        return {name: float(norm) for name, norm in zip(plain, norms, strict=True)}
    except (RuntimeError, NotImplementedError):
        return {}


def _has_norm(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() > 0 and tensor.layout is torch.strided and not tensor.is_meta


def fingerprint(tensors: Iterable[torch.Tensor]) -> tuple[object, ...]:
    """Return a value that changes when a tensor does, for all practical purposes; much cheaper than reading them."""
    named = {str(index): tensor for index, tensor in enumerate(tensors)}
    return (
        *_norms(named).items(),
        *((tensor.data_ptr(), tensor._version) for tensor in named.values() if _has_norm(tensor)),  # noqa: SLF001 - the documented counter
    )


def read_scalar(value: object) -> Reading:
    """Return the reading of a number or text; an int and the equal float read alike."""
    if isinstance(value, (bool, str, type(None))):
        return Reading(digest=repr(value))
    if isinstance(value, (int, float)):
        return Reading(digest=repr(float(value)))
    return Reading(digest=repr(value))


def read_tree(value: object, *, casts: bool = False) -> dict[str, Reading]:
    """Return the readings of all tensors and numbers in nested containers, by path."""
    found = dict(leaves(value))
    tensors = {path: leaf for path, leaf in found.items() if isinstance(leaf, torch.Tensor)}
    read = read_tensors(tensors, casts=casts)
    return {path: read[path] if path in read else read_scalar(leaf) for path, leaf in found.items()}


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
    state: dict[str, object] = {}
    for group_index, group in enumerate(optimizer.param_groups):
        for index, parameter in enumerate(group["params"]):
            if parameter in optimizer.state:
                name = names.get(id(parameter), f"group{group_index}.{index}")
                state.update({f"{name}/{path}": leaf for path, leaf in leaves(optimizer.state[parameter])})
    return read_tree(state)


def hyperparameters(optimizer: torch.optim.Optimizer) -> dict[str, Reading]:
    """Return the settings of each parameter group that decide what an update computes, the learning rate left out."""
    groups = [
        {key: value for key, value in group.items() if key not in _NOT_HYPERPARAMETERS}
        for group in optimizer.param_groups
    ]
    return {
        f"group{index}/{path}": reading
        for index, group in enumerate(groups)
        for path, reading in read_tree(group).items()
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

        state: Any = np.random.get_state()  # noqa: NPY002 - the global generator is what may be used
        readings["numpy"] = _digest(f"{state[1].tobytes().hex()} {state[2:]}")
    if torch.cuda.is_initialized():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            readings[f"cuda:{index}"] = read_tensor(state)
    return readings


def _digest(text: str) -> Reading:
    return Reading(digest=hashlib.blake2b(text.encode(), digest_size=16).hexdigest())
