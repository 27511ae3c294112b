"""Which calls of a save are made to fail: of the second one, as then there is something to lose."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from pytest_ckpt.contracts.completeness import is_whole
from pytest_ckpt.contracts.crash_scenes import Saved
from pytest_ckpt.contracts.restarts import own_of
from pytest_ckpt.records.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.records.fault import ErrorName
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.run import RunRecord

#: An operation, and how many come before it.
Point: TypeAlias = "tuple[int, Operation]"

_NAMINGS = ("rename", "exchange", "link", "symlink", "arrive")


def whole(run: RunRecord, advisor: Advisor) -> tuple[Saved, ...]:
    """Return the checkpoints of an undisturbed run that were whole at some time, in the order of their steps."""
    found = (Saved.of(checkpoint, run) for checkpoint in own_of(run) if is_whole(checkpoint, run, advisor))
    return tuple(sorted(found, key=lambda saved: saved.step))


def chosen(run: RunRecord, advisor: Advisor, errors: Sequence[ErrorName], most: int) -> tuple[Fault, ...]:
    """Return at most so many faults, those that differ most from each other first; the choice depends on the trace alone."""
    queues = [
        [_fault(error, point) for point in points]
        for error, points in SaveCalls.of(run, advisor).queues()
        if error in errors
    ]
    turns = (fault for turn in zip_longest(*queues) for fault in turn if fault is not None)
    return tuple(dict.fromkeys(turns))[:most]


def _fault(error: ErrorName, point: Point) -> Fault:
    number, operation = point
    path = operation.path or operation.target
    return Fault(error=error, operation=number, kind=operation.kind, path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveCalls:
    """The operations of one save.

    Attributes:
        points: in their order.
        before: the paths that were there before.
    """

    points: tuple[Point, ...] = ()
    before: frozenset[str] = frozenset()

    @classmethod
    def of(cls, run: RunRecord, advisor: Advisor) -> SaveCalls:
        """Return those of the second save of a traced run; of its only one, where there is no other."""
        shelf, trace = whole(run, advisor), run.trace
        if not shelf or trace is None:
            return cls()
        steps = sorted({saved.step for saved in shelf})
        since = _end(run, shelf, steps[0]) if steps[1:] else 0
        until = _end(run, shelf, steps[:2][-1])
        within = [(n, one) for n, one in enumerate(trace.operations) if since < one.time_ns <= until]
        looks = [look for look in run.looks if look.time_ns <= since] or list(run.looks[:1])
        before = frozenset(entry.path for entry in looks[-1].tree.entries)
        # what is only added to, such as a file of logs, is no part of a save
        begun = {one.path for _, one in within if one.kind == "open" and (one.empties or one.path not in before)}
        own = tuple((n, one) for n, one in within if one.kind != "write" or one.path is None or one.path in begun)
        return cls(points=own, before=before)

    def queues(self) -> Iterator[tuple[ErrorName, Sequence[Point]]]:
        """Yield errors and the operations that they may strike, the most telling first."""
        first, last = self._writes()
        yield "ENOSPC", first
        yield "ENOSPC", last
        yield "ENOSPC", self._kinds(*_NAMINGS)
        yield "EIO", self._syncs
        yield "EIO", last or first
        yield "ENOSPC", self._makers
        yield "EDQUOT", last or first
        yield "EIO", self._kinds(*_NAMINGS)
        yield "ENOSPC", self._syncs

    def _writes(self) -> tuple[list[Point], list[Point]]:
        """Return the first write to each file, those to the largest first, and the last to those that are written in parts."""
        files: dict[object, list[Point]] = {}
        for point in self._kinds("write", "allocate"):
            files.setdefault(point[1].path or point[1].inode, []).append(point)
        ordered = sorted(files.values(), key=lambda points: -sum(operation.size for _, operation in points))
        return [points[0] for points in ordered], [points[-1] for points in ordered if len(points) > 1]

    @property
    def _syncs(self) -> list[Point]:
        """Return what makes files durable; that a folder can't be is mostly passed over on purpose."""
        folders = {"", "."}
        for _, operation in self.points:
            folders.update(str(parent) for parent in PurePosixPath(operation.path or "").parents)
        return [point for point in self._kinds("sync") if point[1].path not in folders]

    @property
    def _makers(self) -> list[Point]:
        """Return what makes a folder, or a file that is not there yet."""
        made: dict[str | None, Point] = {}
        for point in self._kinds("mkdir", "open"):
            made.setdefault(point[1].path, point)
        return [point for path, point in made.items() if path and path not in self.before]

    def _kinds(self, *kinds: str) -> list[Point]:
        return [point for point in self.points if point[1].kind in kinds]


def _end(run: RunRecord, shelf: Sequence[Saved], step: int) -> int:
    """Return when all was saved that belongs to a step, such as a copy or a pointer beside the checkpoint."""
    saved = [one for one in shelf if one.step == step]
    after = max(one.checkpoint.saved_after for one in saved)
    looks = (look.time_ns for look in run.looks if look.step <= after)
    return max(*(one.ended_ns for one in saved), *looks)
