"""How the checkpoints of a traced run get their names, and what names the newest one: facts that need no restart."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pytest_ckpt.contracts.save_calls import is_below, published, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.crash_scenes import Saved
    from pytest_ckpt.contracts.save_calls import Point
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.run import RunRecord

#: `renamed`: it gets its name when it is whole; `arrived`: from outside of the job's directory; `copied`, `in place`: its bytes
#: arrive under its name, one after the other.
Way: TypeAlias = Literal["renamed", "arrived", "copied", "in place"]

_WRITING: Final = frozenset({"write", "truncate", "allocate", "zero"})
_COPYING: Final = frozenset({"sendfile", "copy_file_range"})
#: What the name of a file says that holds the number of a checkpoint, and not just any.
_OF_NEWEST: Final = re.compile(r"latest|last|newest|resume|checkpoint|ckpt", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """How a checkpoint got its name.

    Attributes:
        saved: the checkpoint.
        way: how.
        since: the number of the last operation on an earlier one under this name; -1 where there was none.
        first: the number of the operation that gives it its name, or is the first under it.
        last: the number of the operation after which it is whole.
        source: what it was called before, where it was called anything.
        tail: its file that is written last, where it has several that get their names one by one.
    """

    saved: Saved
    way: Way
    since: int
    first: int
    last: int
    source: str = ""
    tail: str = ""

    @property
    def path(self) -> str:
        """The checkpoint's path."""
        return self.saved.checkpoint.path


def publications(run: RunRecord, advisor: Advisor) -> tuple[Publication, ...]:
    """Return how each checkpoint of a traced run that was whole got its name, in the order in which they were whole."""
    shelf = whole(run, advisor)
    ends = [(saved, published(saved, run)) for saved in shelf]
    found = (_publication(saved, _since(saved, ends), last, run) for saved, last in ends if last >= 0 and _files(saved))
    return tuple(sorted(found, key=lambda one: one.last))


def of_one_save(found: Sequence[Publication]) -> list[Publication]:
    """Return those of the second save, which is like those that follow; of the only one, where there is no other."""
    steps = sorted({one.saved.step for one in found})[:2]
    return [one for one in found if one.saved.step == steps[-1]]


def _since(saved: Saved, ends: Sequence[tuple[Saved, int]]) -> int:
    """Return the last operation on what lay under a checkpoint's name before."""
    own = saved.checkpoint
    return max(
        (last for one, last in ends if one.checkpoint.path == own.path and one.checkpoint.version < own.version),
        default=-1,
    )


def _files(saved: Saved) -> list[str]:
    return [entry.path for entry in saved.entries if entry.kind == "file"]


def _publication(saved: Saved, since: int, last: int, run: RunRecord) -> Publication:
    assert run.trace is not None  # noqa: S101 - the caller has looked
    window = enumerate(run.trace.operations[since + 1 : last + 1], since + 1)
    points = [(number, one) for number, one in window if _is_on(one, saved)]
    files = _files(saved)
    named = {path: _named(path, points) for path in files}
    written = {path: _written(path, named[path], points) for path in files}
    namings = set(named.values())
    first = next(iter(namings))
    if len(namings) == 1 and first is not None and not any(written.values()):
        return _at_once(saved, first, points, since=since)
    ends = {path: max([*written[path], -1 if (given := named[path]) is None else given]) for path in files}
    calls = {run.trace.operations[number].call for numbers in written.values() for number in numbers}
    return Publication(
        saved=saved,
        way="copied" if calls & _COPYING else "in place",
        since=since,
        first=points[0][0] if points else last,
        last=last,
        tail=max(files, key=lambda path: ends[path]) if len(files) > 1 else "",
    )


def _at_once(saved: Saved, number: int, points: Sequence[Point], *, since: int) -> Publication:
    one = next(operation for place, operation in points if place == number)
    arrived = one.kind == "arrive"
    return Publication(
        saved=saved,
        way="arrived" if arrived else "renamed",
        since=since,
        first=number,
        last=number,
        source=(one.target if arrived else one.path) or "",
    )


def _named(path: str, points: Sequence[Point]) -> int | None:
    """Return the number of the operation that gave a file, or a folder that it lies in, its name; None if none did."""
    return max((number for number, one in points if is_below(path, new_name(one))), default=None)


def new_name(operation: Operation) -> str | None:
    """Return the name that an operation gives to what is there already; None if it gives none."""
    if operation.kind in {"rename", "exchange", "link"}:
        return operation.target
    return operation.path if operation.kind == "arrive" else None


def _written(path: str, named: int | None, points: Sequence[Point]) -> list[int]:
    """Return the numbers of the operations that change a file under its own name."""
    return [
        number
        for number, one in points
        if one.path == path
        and (one.kind in _WRITING or (one.kind == "open" and one.empties))
        and (named is None or number > named)
    ]


def _is_on(operation: Operation, saved: Saved) -> bool:
    """Say whether an operation is on what lies under a checkpoint's names, or gives it, or a folder around it, its name."""
    if not operation.changes or operation.kind in {"unlink", "rmdir", "depart"}:
        return False
    new = new_name(operation)
    paths = (saved.checkpoint.path, *saved.checkpoint.others)
    return any(is_below(operation.path, path) or is_below(new, path) or is_below(path, new) for path in paths)


# -- what names a checkpoint -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """A link, or a file of one line, that comes to name a checkpoint, by its path or by its number.

    Attributes:
        path: the pointer's.
        number: the operation by which it says so.
        begun: the first operation on it that a reader may see, as when it was emptied, or removed; None where it is replaced
            at once.
        to: the checkpoint that it names.
    """

    path: str
    number: int
    to: Publication
    begun: int | None = None

    @property
    def is_early(self) -> bool:
        """Whether it names what is not whole yet."""
        return self.number < self.to.last


def pointings(run: RunRecord, found: Sequence[Publication]) -> tuple[Pointing, ...]:
    """Return how pointers came to name checkpoints, in their order."""
    assert run.trace is not None  # noqa: S101 - the caller has looked
    points = list(enumerate(run.trace.operations))
    return tuple(pointing for point in points for pointing in _pointing(point, points, found, run.directory))


def _pointing(
    point: Point, points: Sequence[Point], found: Sequence[Publication], directory: str
) -> Iterator[Pointing]:
    number, one = point
    says = one.target if one.kind == "symlink" else one.says
    if not says or one.path is None:
        return
    renamed = _renamed(point, points)
    path = one.path if renamed is None else renamed[1].target
    names = _meant(says, one.path, directory)
    meant = [to for to in found if to.saved.ended_ns >= one.time_ns and (to.path in names or _counts(to, says, path))]
    if not meant or is_below(one.path, meant[0].path):
        return
    if renamed is not None:
        yield Pointing(path=path, number=renamed[0], to=meant[0])
        return
    yield Pointing(path=path, number=number, to=meant[0], begun=_begun(points[:number], path))


def _begun(before: Sequence[Point], path: str) -> int | None:
    """Return the operation since which a pointer has been empty, or gone; None if it says something until it is renewed."""
    on = [point for point in before if path in {point[1].path, point[1].target} and point[1].changes]
    gone = [number for number, _ in takewhile(lambda point: _takes_away(point[1]), reversed(on))]
    return gone[-1] if gone else None


def _renamed(point: Point, points: Sequence[Point]) -> Point | None:
    """Return the operation that gives what was just written another name, if it is the next on it."""
    path = point[1].path
    after = next((later for later in points[point[0] + 1 :] if path in {later[1].path, later[1].target}), None)
    return after if after is not None and after[1].kind == "rename" and after[1].path == path else None


def _meant(says: str, pointer: str, directory: str) -> set[str]:
    """Return which paths in the directory a pointer may mean: from where it lies, or from the top."""
    beside = posixpath.join(posixpath.dirname(pointer), says)
    return {posixpath.normpath(path.removeprefix(f"{directory}/")) for path in (says, beside)}


def _counts(to: Publication, says: str, pointer: str) -> bool:
    """Say whether a file that holds nothing but a number, and is named for that, means a checkpoint by it."""
    is_named = _OF_NEWEST.search(posixpath.basename(pointer)) is not None
    return says.isdecimal() and is_named and int(says) == to.saved.checkpoint.claimed


def _takes_away(operation: Operation) -> bool:
    return operation.kind == "unlink" or (operation.kind == "open" and operation.empties)
