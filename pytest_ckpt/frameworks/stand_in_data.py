"""Loaders of a rehearsal: as long as the real ones, in the same order, and with nothing in their batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

if TYPE_CHECKING:
    from pytest_ckpt.frameworks.stand_in import Watch


class Batch(dict[str, Any]):
    """A batch without anything in it; libraries make copies of it by its class."""

    watch: ClassVar[Watch]

    def __missing__(self, key: object) -> None:
        """Refuse: nothing was collated."""
        self.watch.refuse(f"reads {key!r} of a batch")

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the default, and note that more was expected."""
        self.watch.note(f"reads {key!r} of a batch")
        return default


def _kind_of_batch(watch: Watch) -> type[Batch]:
    return type("Batch", (Batch,), {"watch": watch})


class _Light(Dataset[Any]):
    """As long as a data set; its samples are read for the first batches of an epoch, as many as asked for, and no more."""

    def __init__(self, data: Any, turn: _Turn) -> None:
        self._data = data
        self._turn = turn

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        if not self._turn.next_is_real():
            return indices
        many = getattr(self._data, "__getitems__", None)
        return list(many(indices)) if many is not None else [self._data[index] for index in indices]


class _Turn:
    """Counts the batches of an epoch."""

    def __init__(self, real: int) -> None:
        self._real = real
        self._begun = 0

    def begin(self) -> None:
        """Begin an epoch."""
        self._begun = 0

    def next_is_real(self) -> bool:
        """Count a batch, and say whether it is one of the real ones."""
        self._begun += 1
        return self._begun <= self._real


def without_reading(loader: object, watch: Watch, *, real_batches: int = 0) -> bool:
    """Have a loader keep its sampler and length and read no sample; say whether that could be done.

    Of a data set without a length the samples are read, as nothing else tells how many there are; they are not collated.

    Args:
        real_batches: how many batches are read and collated after each `begin_epoch`, and at first.
    """
    if not isinstance(loader, DataLoader):
        return False
    kind, collate, read, collated = _kind_of_batch(watch), loader.collate_fn, _Turn(real_batches), _Turn(real_batches)
    empty, measured = kind(), isinstance(loader.dataset, IterableDataset)

    def light(samples: Any) -> Any:
        if collated.next_is_real():
            return collate(samples)
        # accelerate measures the batches of a data set without a length, and divides them
        return kind({"rehearsed": torch.zeros(len(samples))}) if measured else empty

    plain = {"num_workers": 0, "prefetch_factor": None, "pin_memory": False, "timeout": 0, "persistent_workers": False}
    for one in {
        loader,
        getattr(loader, "base_dataloader", loader),
    }:  # the newer loaders of accelerate have another inside
        attributes = vars(one)  # torch forbids to set some of them later, and nothing has been read yet
        attributes.update(plain, collate_fn=light, turns_of_rehearsal=(read, collated))
        if not isinstance(one.dataset, IterableDataset):
            attributes["dataset"] = _Light(one.dataset, read)
    if hasattr(loader, "device"):  # where accelerate moves batches to
        loader.device = None
    return True


def begin_epoch(loader: DataLoader[Any]) -> bool:
    """Have the first batches be real again; say whether the loader has been told to read nothing else."""
    turns: tuple[_Turn, ...] = vars(loader).get("turns_of_rehearsal", ())
    for turn in turns:
        turn.begin()
    return bool(turns)


def is_real(batch: object) -> bool:
    """Say whether there is something in a batch, or in all parts of it."""
    if isinstance(batch, Mapping):
        return not isinstance(batch, Batch) and all(map(is_real, batch.values()))
    return all(map(is_real, batch)) if isinstance(batch, (list, tuple)) else True
