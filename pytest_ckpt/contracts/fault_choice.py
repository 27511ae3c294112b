"""Which calls of a save are made to fail, and how: those that differ most from each other first."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.save_calls import SaveCalls
from pytest_ckpt.records.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.save_calls import Point
    from pytest_ckpt.records.fault import ErrorName
    from pytest_ckpt.records.run import RunRecord

_NAMINGS = ("rename", "exchange", "link", "symlink", "arrive")


def chosen(run: RunRecord, advisor: Advisor, errors: Sequence[ErrorName], most: int) -> tuple[Fault, ...]:
    """Return at most so many faults; the choice depends on the trace alone."""
    queues = [
        [_fault(error, point) for point in points]
        for error, points in _queues(SaveCalls.of(run, advisor))
        if error in errors
    ]
    turns = (fault for turn in zip_longest(*queues) for fault in turn if fault is not None)
    return tuple(dict.fromkeys(turns))[:most]


def _fault(error: ErrorName, point: Point) -> Fault:
    number, operation = point
    path = operation.path or operation.target
    return Fault(error=error, operation=number, kind=operation.kind, path=path)


def _queues(calls: SaveCalls) -> Iterator[tuple[ErrorName, Sequence[Point]]]:
    """Yield errors and the operations that they may strike, the most telling first."""
    first, last = _writes(calls)
    yield "ENOSPC", first
    yield "ENOSPC", last
    yield "ENOSPC", _of(calls, *_NAMINGS)
    yield "EIO", _syncs(calls)
    yield "EIO", last or first
    yield "ENOSPC", _makers(calls)
    yield "EDQUOT", last or first
    yield "EIO", _of(calls, *_NAMINGS)
    yield "ENOSPC", _syncs(calls)


def _writes(calls: SaveCalls) -> tuple[list[Point], list[Point]]:
    """Return the first write to each file, those to the largest first, and the last to those that are written in parts."""
    files: dict[object, list[Point]] = {}
    for point in _of(calls, "write", "allocate"):
        files.setdefault(point[1].path or point[1].inode, []).append(point)
    ordered = sorted(files.values(), key=lambda points: -sum(operation.size for _, operation in points))
    return [points[0] for points in ordered], [points[-1] for points in ordered if len(points) > 1]


def _syncs(calls: SaveCalls) -> list[Point]:
    """Return what makes files durable; that a folder can't be is mostly passed over on purpose."""
    folders = {"", "."}
    for _, operation in calls.points:
        folders.update(str(parent) for parent in PurePosixPath(operation.path or "").parents)
    return [point for point in _of(calls, "sync") if point[1].path not in folders]


def _makers(calls: SaveCalls) -> list[Point]:
    """Return what makes a folder, or a file that is not there yet."""
    made: dict[str | None, Point] = {}
    for point in _of(calls, "mkdir", "open"):
        made.setdefault(point[1].path, point)
    return [point for path, point in made.items() if path and path not in calls.before]


def _of(calls: SaveCalls, *kinds: str) -> list[Point]:
    return [point for point in calls.points if point[1].kind in kinds]
