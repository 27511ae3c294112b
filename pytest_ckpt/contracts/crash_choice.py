"""Which of many crash states are tried: those that differ most from each other first."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.records.crash import CrashState, Trace

_NUMBER: Final = re.compile(r"\d+")
_Sort: TypeAlias = "tuple[str, str, bool, str]"


def chosen(trace: Trace, numbers: Sequence[int], most: int, *, urgent: Sequence[int] = ()) -> tuple[int, ...]:
    """Return at most so many numbers of states, in the order in which they are to be tried.

    Each kind of operation on each file, their numbers left open, has its turn before any has a second one; the last of a
    kind comes first, as most lies in the directory then. The choice depends on the trace alone.

    Args:
        urgent: those of which one of each kind comes before all others.
    """
    first = [queue[0] for queue in _queues(trace, urgent)]
    return tuple(dict.fromkeys((*first, *_in_turns(_queues(trace, numbers)))))[:most]


def _queues(trace: Trace, numbers: Sequence[int]) -> list[list[int]]:
    """Return the numbers of each kind, the last first."""
    sorts: dict[_Sort, list[int]] = defaultdict(list)
    for number in reversed(numbers):
        sorts[_sort(trace.states[number], trace)].append(number)
    return list(sorts.values())


def _sort(state: CrashState, trace: Trace) -> _Sort:
    """Return what a state has in common with others."""
    if not state.operations:
        return ("", "", False, "")
    last = trace.operations[state.operations - 1]
    special = _NUMBER.sub("N", state.lost) or ("late" if state.undone else "")
    return (last.kind, _NUMBER.sub("N", last.path or ""), state.cut is not None, special)


def _in_turns(queues: Sequence[list[int]]) -> list[int]:
    """Return the first of each queue, then the second of each, and so on."""
    longest = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
