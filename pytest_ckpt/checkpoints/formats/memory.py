"""How much of the memory that a file stores is used by the tensors that view it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from pytest_ckpt.checkpoints.file_content import Memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.checkpoints.file_content import TensorEntry
    from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor


def memory_of(tensors: Iterable[tuple[TensorEntry, RawTensor]]) -> tuple[Memory, ...]:
    """Return the memory behind tensors, each storage once."""
    views: dict[int, list[tuple[TensorEntry, RawTensor]]] = defaultdict(list)
    for entry, tensor in tensors:
        views[id(tensor.storage)].append((entry, tensor))
    return tuple(_one(found) for found in views.values())


def _one(views: Sequence[tuple[TensorEntry, RawTensor]]) -> Memory:
    by_size = sorted(views, key=lambda view: -_size(view[1]))
    entry, tensor = by_size[0]
    alone = len({other.digest for other, _ in views}) == 1 and not entry.constant
    return Memory(
        keys=tuple(other.key for other, _ in by_size),
        stored=len(tensor.storage.data),
        needed=_used([view for _, view in views]),
        digest=entry.digest if alone else "",
    )


def _size(tensor: RawTensor) -> int:
    return tensor.numel * tensor.item_size


def _used(tensors: Sequence[RawTensor]) -> int:
    """Return how many bytes belong to an element; exact unless views with gaps overlap."""
    places = {(t.dtype, t.offset, t.shape, t.stride): t for t in tensors}.values()
    return min(sum(map(_size, places)), _covered([(t.offset * t.item_size, t.end * t.item_size) for t in places]))


def _covered(ranges: Sequence[tuple[int, int]]) -> int:
    total = reached = 0
    for begin, end in sorted(ranges):
        total += max(end - max(begin, reached), 0)
        reached = max(reached, end)
    return total
