"""How the keys of a checkpoint come about, and what a loaded one holds: names that wrappers add, and classes that are let in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch

from pytest_ckpt.runs import readings
from pytest_ckpt.runs.inventory import buffers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.records.loading import Loading

#: Packages whose modules wrap a model under a name that gets into the keys.
_WRAPPING: Final = (
    "torch",
    "accelerate",
    "deepspeed",
    "fairscale",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
)


def own_names(roots: Iterable[torch.nn.Module], words: Iterable[str]) -> list[str]:
    """Return the words under which the job's own classes keep a part of theirs, so that no wrapper need have added them."""
    words = frozenset(words)
    found = {
        name
        for root in roots
        for module in root.modules()
        if type(module).__module__.split(".", 1)[0] not in _WRAPPING
        for name, _ in module.named_children()
        if name in words
    }
    return sorted(found)


def allowed_globals() -> list[str]:
    """Return what this process lets `torch.load(weights_only=True)` use beyond what torch itself does."""
    known: list[Any] = getattr(torch.serialization, "get_safe_globals", list)()
    return sorted(one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}" for one in known)


def with_tensors(loading: Loading, models: Sequence[object]) -> Loading:
    """Return what a loader did, with the tensors of the first model that it returned and which of them differ in the others."""
    found = [
        {**readings.read_tensors(dict(model.named_parameters()), casts=True), **buffers_of(model)}
        for model in models
        if isinstance(model, torch.nn.Module)
    ]
    if not found:
        return loading
    first, *others = found
    drawn = {
        name for other in others for name, value in first.items() if name in other and value.differs_from(other[name])
    }
    return replace(loading, tensors=first, drawn=tuple(sorted(drawn)))
