"""Which of the operations of a traced run belong to its second save: there is something to lose then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pytest_ckpt.contracts.completeness import is_whole
from pytest_ckpt.contracts.crash_scenes import Saved
from pytest_ckpt.contracts.restarts import own_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.run import RunRecord

#: An operation, and how many come before it.
Point: TypeAlias = "tuple[int, Operation]"


def whole(run: RunRecord, advisor: Advisor) -> tuple[Saved, ...]:
    """Return the checkpoints of an undisturbed run that were whole at some time, in the order of their steps."""
    found = (Saved.of(checkpoint, run) for checkpoint in own_of(run) if is_whole(checkpoint, run, advisor))
    return tuple(sorted(found, key=lambda saved: saved.step))


def published(saved: Saved, run: RunRecord) -> int:
    """Return the number of the last operation on what belongs to a checkpoint, up to when it was seen to be whole."""
    names = {entry.path for entry in saved.entries}
    operations = run.trace.operations if run.trace is not None else ()
    numbers = (
        number
        for number, one in enumerate(operations)
        if one.time_ns <= saved.ended_ns and one.changes and (_touches(one, names) or _makes(one, saved))
    )
    return max(numbers, default=-1)


def is_below(path: str | None, folder: str | None) -> bool:
    """Say whether a path is another one, or lies in that folder."""
    return path is not None and bool(folder) and (path == folder or path.startswith(f"{folder}/"))


def _touches(operation: Operation, names: Collection[str]) -> bool:
    return operation.path in names or (operation.target in names and operation.kind != "symlink")


def _makes(operation: Operation, saved: Saved) -> bool:
    """Say whether an operation gives a checkpoint, or a folder that it lies in, its name."""
    return operation.kind in {"rename", "exchange", "link"} and is_below(saved.checkpoint.path, operation.target)


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
        saves = [[saved for saved in shelf if saved.step == step] for step in steps[:3]]
        ends = _ends(run, saves)
        since, until = (-1, ends[0]) if not saves[1:] else (ends[0], ends[1])
        within = [(number, trace.operations[number]) for number in range(since + 1, until + 1)]
        before = _there(run, since)
        # what is only added to, such as a file of logs, is no part of a save
        begun = {one.path for _, one in within if one.kind == "open" and (one.empties or one.path not in before)}
        own = tuple((n, one) for n, one in within if one.kind != "write" or one.path is None or one.path in begun)
        return cls(points=own, before=before)


def _ends(run: RunRecord, saves: Sequence[Sequence[Saved]]) -> list[int]:
    """Return the number of the last operation that belongs to each save, such as that of a pointer beside the checkpoint.

    That is all until the next look at the same step, but for what belongs to the save after that: threads overlap.
    """
    assert run.trace is not None  # noqa: S101 - the caller has looked
    times = [operation.time_ns for operation in run.trace.operations]
    own = [max(published(one, run) for one in saved) for saved in saves]
    found = []
    for place, saved in enumerate(saves):
        after = max(one.checkpoint.saved_after for one in saved)
        looked = max((look.time_ns for look in run.looks if look.step <= after), default=0)
        begins = len(times)
        if saves[place + 1 :]:
            numbers = range(own[place] + 1, own[place + 1] + 1)
            begins = next((n for n in numbers if _is_of(saves[place + 1], n, own[place + 1], run)), begins)
        found.append(max(own[place], *(n for n in range(begins) if times[n] <= looked), -1))
    return found


def _is_of(saved: Sequence[Saved], number: int, until: int, run: RunRecord) -> bool:
    """Say whether an operation is on what belongs to these checkpoints, by the names that they had before, too."""
    assert run.trace is not None  # noqa: S101 - the caller has looked
    names = {entry.path for one in saved for entry in one.entries} | {one.checkpoint.path for one in saved}
    for later in reversed(run.trace.operations[number + 1 : until + 1]):
        if later.kind in {"rename", "link"} and any(is_below(name, later.target) for name in names):
            names.add(later.path or "")
    path = run.trace.operations[number].path
    return any(is_below(path, name) for name in names)


def _there(run: RunRecord, since: int) -> frozenset[str]:
    """Return the paths that were there after an operation, as far as looks and operations tell."""
    assert run.trace is not None  # noqa: S101 - the caller has looked
    begun = run.trace.operations[since].time_ns if since >= 0 else 0
    looks = [look for look in run.looks if look.time_ns <= begun] or list(run.looks[:1])
    seen = {entry.path for entry in looks[-1].tree.entries} if looks else set()
    made = (one for one in run.trace.operations[: since + 1] if one.kind in {"open", "mkdir", "arrive", "symlink"})
    gone = {
        one.path for one in run.trace.operations[: since + 1] if one.kind in {"rename", "unlink", "rmdir", "depart"}
    }
    return frozenset(seen | {one.path for one in made if one.path is not None and one.path not in gone})
