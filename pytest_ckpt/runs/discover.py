"""Finding what no hook announces: optimizers, schedulers, gradient scalers and averaged copies of the weights.

They are looked for among the objects that the garbage collector tracks. The lab freezes the collector before fixtures are
set up, so that only objects of the test and its job are looked at.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

import torch

#: Distance relative to the weights' norm; an average lies near them, a copy of gradients or of random numbers does not.
_NEAR: Final = 0.9
_WRAPPERS: Final = ("module.", "_orig_mod.")

#: The trained parameters of one model, by name.
Family: TypeAlias = Mapping[str, torch.Tensor]
_Container: TypeAlias = Mapping[object, object] | Sequence[object] | torch.nn.Module


@dataclass(frozen=True, slots=True)
class Average:
    """A second set of tensors that belongs to a family by names and shapes and lies near it.

    The container is kept, not its tensors: an average may be updated by putting new tensors into the same dict.
    """

    label: str
    container: _Container
    keys: Mapping[str, str]

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors as they are now, by the names of the family."""
        now = _tensors_in(self.container)
        for name, key in self.keys.items():
            if key in now:
                yield name, now[key]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search brought: live objects, in the order in which the collector tracks them."""

    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    schedulers: list[torch.optim.lr_scheduler.LRScheduler] = field(default_factory=list)
    scalers: list[torch.amp.GradScaler] = field(default_factory=list)
    averages: list[Average] = field(default_factory=list)


def search(families: Sequence[Family]) -> Found:
    """Look through the process for training state; averages are looked for of each family of trained parameters."""
    found = Found()
    modules: list[torch.nn.Module] = []
    roles: dict[type, list[object] | None] = {torch.nn.Module: cast("list[object]", modules)}
    for candidate in gc.get_objects():
        kind = type(candidate)
        if kind is dict or kind is list:
            if candidate:
                found.averages.extend(_averages(candidate, families))
            continue
        if kind not in roles:
            roles[kind] = _role(kind, found, modules)
        role = roles[kind]
        if role is not None:
            role.append(candidate)
    for module in modules:
        found.averages.extend(_averages(module, families))
    return found


def _role(kind: type, found: Found, modules: list[torch.nn.Module]) -> list[object] | None:
    """Return the list that objects of this type belong into."""
    roles: tuple[tuple[type, object], ...] = (
        (torch.nn.Module, modules),
        (torch.optim.Optimizer, found.optimizers),
        (torch.optim.lr_scheduler.LRScheduler, found.schedulers),
        (torch.amp.GradScaler, found.scalers),
    )
    return next((cast("list[object]", role) for base, role in roles if issubclass(kind, base)), None)


def _tensors_in(container: _Container) -> dict[str, torch.Tensor]:
    """Return a model's, dict's or list's tensors by name or position; empty if it holds anything else."""
    if isinstance(container, torch.nn.Module):
        return dict(container.named_parameters())
    if isinstance(container, Mapping):
        key, value = next(iter(container.items()))
        if not (isinstance(key, str) and isinstance(value, torch.Tensor)):
            return {}
        return {str(key): value for key, value in container.items() if isinstance(value, torch.Tensor)}
    if not all(isinstance(value, torch.Tensor) for value in container):
        return {}
    return {f"#{index}": cast("torch.Tensor", value) for index, value in enumerate(container)}


def _averages(container: _Container, families: Sequence[Family]) -> Iterator[Average]:
    tensors = _tensors_in(container)
    if len(tensors) < 2:  # noqa: PLR2004 - one tensor may be anything
        return
    for family in families:
        keys = _match(tensors, family)
        if keys and _is_average({name: tensors[key] for name, key in keys.items()}, family):
            yield Average(type(container).__name__, container, keys)


def _match(tensors: Mapping[str, torch.Tensor], family: Family) -> dict[str, str]:
    """Return the candidate's keys by the family's names, or nothing if they do not belong to each other."""
    if len(tensors) < len(family) or len(family) < 2:  # noqa: PLR2004
        return {}
    if "#0" in tensors:
        keys = dict(zip(family, tensors, strict=False)) if len(tensors) == len(family) else {}
    else:
        plain = {plain_name(key): key for key in tensors}
        prefix = _prefix(plain, plain_name(next(iter(family))))
        keys = {name: plain[key] for name in family if (key := prefix + plain_name(name)) in plain}
    if len(keys) != len(family) or any(tensors[keys[name]].shape != family[name].shape for name in family):
        return {}
    return keys


def _prefix(names: Iterable[str], first: str) -> str:
    """Return what stands before the family's names: a part of a model may be called itself, and be copied with the whole."""
    if first in names:
        return ""
    longer = [name for name in names if name.endswith(f".{first}")]
    return longer[0].removesuffix(first) if len(longer) == 1 else ""


def _is_average(tensors: Mapping[str, torch.Tensor], family: Family) -> bool:
    """Say whether the tensors are a copy of their own that lies near the trained ones."""
    distance, size = 0.0, 0.0
    for name, tensor in tensors.items():
        weights = family[name]
        try:
            if tensor.untyped_storage().data_ptr() == weights.untyped_storage().data_ptr():
                return False
            with torch.no_grad():
                distance += float((tensor.detach().float() - weights.detach().float()).square().sum())
                size += float(weights.detach().float().square().sum())
        except (RuntimeError, NotImplementedError):  # tensors without a storage of their own
            return False
    return distance < _NEAR**2 * size


def plain_name(name: str) -> str:
    """Return a parameter's name without the prefixes that wrappers add."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "") if name.startswith(wrapper) or f".{wrapper}" in name else name
    return name
