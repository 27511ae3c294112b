"""Which files of a checkpoint are made durable before they get their names, and their directory after: without a restart."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.publishing import new_name
from pytest_ckpt.contracts.save_calls import is_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.publishing import Publication
    from pytest_ckpt.contracts.save_calls import Point
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Syncing:
    """How a file is made durable.

    Attributes:
        path: its own, in the end.
        written: the number of the last write to it.
        named: of the operation by which it gets its name; None where it is written under it.
        synced: of the last sync of it, up to the end of the save; None if there is none.
    """

    path: str
    written: int
    named: int | None = None
    synced: int | None = None

    @property
    def is_early(self) -> bool:
        """Whether more was written to it afterwards, as what was in a buffer of the program."""
        return self.synced is not None and self.synced < self.written

    @property
    def is_late(self) -> bool:
        """Whether it had its name before."""
        return self.synced is not None and self.named is not None and self.synced > self.named


def syncings(publication: Publication, run: RunRecord) -> tuple[Syncing, ...]:
    """Return how the files of a checkpoint are made durable, for those that the job wrote within its directory."""
    points = _points(publication, run)
    files = [entry.path for entry in publication.saved.entries if entry.kind == "file"]
    return tuple(found for path in files for found in _syncing(path, points))


def unsynced_folder(publication: Publication, run: RunRecord) -> str | None:
    """Return the directory that the checkpoint lies in if it is not synced once it has the name; None if it is."""
    folder = posixpath.dirname(publication.path)
    later = (one for number, one in _points(publication, run) if number > publication.first)
    return None if any(one.kind == "sync_all" or _is_sync_of(one.kind, one.path, folder) for one in later) else folder


def _is_sync_of(kind: str, path: str | None, folder: str) -> bool:
    return kind == "sync" and path == folder


def _points(publication: Publication, run: RunRecord) -> list[Point]:
    """Return the operations of a save, to its end: a directory is synced after all else."""
    assert run.trace is not None  # noqa: S101 - the caller has looked
    points = enumerate(run.trace.operations)
    return [
        (number, one)
        for number, one in points
        if number > publication.since and one.time_ns <= publication.saved.ended_ns
    ]


def _syncing(path: str, points: Sequence[Point]) -> Iterator[Syncing]:
    name, named = path, None
    own: list[Point] = []
    for number, one in reversed(points):
        if is_below(name, new := new_name(one)) and one.kind in {"rename", "link"} and one.path is not None:
            named = number if named is None else named
            name = one.path + name.removeprefix(new or "")
        elif one.path == name or one.kind == "sync_all":
            own.append((number, one))
    written = max((number for number, one in own if one.kind == "write"), default=None)
    if written is None:
        return
    synced = [number for number, one in own if one.kind in {"sync", "sync_all"}]
    fitting = [number for number in synced if number > written and (named is None or number < named)]
    yield Syncing(path=path, written=written, named=named, synced=max(fitting or synced, default=None))
