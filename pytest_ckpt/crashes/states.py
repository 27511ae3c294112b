"""From the log of one run to every state in which a crash could have left its directory, each of them once."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.filesystem import FileSystem
from pytest_ckpt.crashes.power import unplugged
from pytest_ckpt.records.crash import CrashState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pytest_ckpt.crashes.log import Log
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.tree import Tree

#: The kernel copies the bytes of a write page by page: a kill lets whole pages arrive.
_PAGE: Final = 4096

#: Bytes of a file above which not each of its writes makes a state.
_LARGE: Final = 1 << 20

#: How many orders of operations that overlap are followed at a time; of more, those with the fewest late ones.
_READINGS: Final = 16


def states(
    log: Log,
    initial: Tree,
    read: Callable[[str], bytes],
    keep: Callable[[bytes], str],
    ends: Iterable[int] = (),
) -> tuple[CrashState, ...]:
    """Return what kills can leave between the operations and within long writes, then what power failures can.

    Args:
        initial: what was there before the run.
        read: gives the content of a file of `initial` by its digest.
        keep: stores the content of a file under its digest, which it returns.
        ends: when saves were seen to have ended, in nanoseconds since the epoch.
    """
    found: dict[tuple[object, ...], CrashState] = {}
    last: dict[tuple[object, ...], int] = {}
    kept: set[str] = set()
    kills = _all(log, FileSystem(initial, read, log.data))
    for state, files in chain(kills, unplugged(log, FileSystem(initial, read, log.data), sorted(ends))):
        tree = files.tree
        key = tuple((entry.path, entry.kind, entry.content) for entry in tree.entries)
        if key not in found:
            for file in files.files():
                if file.digest not in kept:
                    kept.add(keep(file.content))
            found[key] = replace(state, tree=tree)
        if state.lost == found[key].lost:
            lasts = key in last and last[key] >= state.operations - 1
            entered = found[key].entered if lasts else state.operations
            found[key] = replace(found[key], until=state.operations, entered=entered)
            if state.cut is None:
                last[key] = state.operations
    return tuple(found.values())


def _all(log: Log, files: FileSystem) -> Iterator[tuple[CrashState, FileSystem]]:
    """Yield all states as they lie in memory, equal ones included."""
    readings: dict[tuple[int, ...], FileSystem] = {(): files}
    yield CrashState(operations=0), files
    amid = _amid_large(log.operations)
    for number, operation in enumerate(log.operations):
        for cut in _cuts(operation) if number not in amid else ():
            torn = readings[()].copy()
            torn.apply(operation, cut=cut)
            yield CrashState(operations=number + 1, cut=cut), torn
        begun = number + 1
        late = (
            {(*undone, number): files.copy() for undone, files in readings.items()} if log.may_be_late(number) else {}
        )
        for reading in readings.values():
            reading.apply(operation)
        open_ones = [undone for undone in (*readings, *late) if all(log.done[one] >= begun for one in undone)]
        readings = {undone: {**readings, **late}[undone] for undone in sorted(open_ones, key=len)[:_READINGS]}
        for undone, reading in readings.items() if number not in amid else ():
            yield CrashState(operations=begun, undone=undone), reading


def _amid_large(operations: Sequence[Operation]) -> frozenset[int]:
    """Return the writes to large files that are like those before and after them: each state would be a copy of the file."""
    runs: dict[tuple[str | None, int], list[int]] = {}
    done: list[list[int]] = []
    for number, operation in enumerate(operations):
        name = operation.path, operation.thread
        if operation.kind == "write":
            runs.setdefault(name, []).append(number)
        elif name in runs:
            done.append(runs.pop(name))
    large = [run for run in (*done, *runs.values()) if sum(operations[number].size for number in run) > _LARGE]
    shown = {number for run in large for number in (run[0], run[len(run) // 2], run[-1])}
    return frozenset(number for run in large for number in run if number not in shown)


def replayed(log: Log, initial: Tree, read: Callable[[str], bytes]) -> Tree:
    """Return what the operations leave, one after the other to the last."""
    files = FileSystem(initial, read, log.data)
    for operation in log.operations:
        files.apply(operation)
    return files.tree


def _cuts(operation: Operation) -> tuple[int, ...]:
    """Return after how many bytes a write is cut off: one page, half of it, all but the last page."""
    pages = (operation.size - 1) // _PAGE
    if operation.kind != "write" or pages < 1:
        return ()
    return tuple(sorted({_PAGE, (pages + 1) // 2 * _PAGE, pages * _PAGE}))
