"""The states in which a job failed, as a table: their numbers, what is whole, what was being done, what a restart did."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.contracts.crash_scenes import CrashScene
    from pytest_ckpt.contracts.restarts import Restarted
    from pytest_ckpt.records.crash import CrashState, Trace
    from pytest_ckpt.records.operation import Operation

#: A state, and what a restart did in it; None where none was tried.
Broken: TypeAlias = "tuple[CrashScene, Restarted | None]"
#: States of which one follows the other, with one outcome.
_Run: TypeAlias = "list[tuple[CrashScene, Restarted | None]]"

#: Rows, each for states that are alike.
_ROWS: Final = 6
#: Ranges of numbers that a row names; the others are counted.
_RANGES: Final = 2
#: Characters of an operation above which only the new name is told.
_SHORT: Final = 30
_NUMBER: Final = re.compile(r"\d+")


def state_rows(broken: Sequence[Broken], looked_at: Iterable[int], trace: Trace) -> Iterator[tuple[str, ...]]:
    """Yield a heading, and a row for states that follow each other and have the same outcome, in each save alike.

    Args:
        broken: in the order of their numbers.
        looked_at: the numbers of all states that were looked at, those in which all is well included.
    """
    alike: dict[tuple[object, ...], list[_Run]] = defaultdict(list)
    for run in _runs(broken, looked_at):
        alike[_kind(run, trace)].append(run)
    largest = sorted(alike.values(), key=lambda runs: -sum(map(len, runs)))[:_ROWS]
    was_tried = any(found is not None for _, found in broken)
    done = "power lost after" if broken[0][0].by_power else "killed in or after"
    yield ("state", "newest whole", done, *(["a restart"] if was_tried else []))
    for runs in sorted(largest, key=lambda runs: runs[0][0][0].number):
        yield (*_row(runs, trace), *([_outcome(*runs[0][0])] if was_tried else []))
    left = len(broken) - sum(len(run) for runs in largest for run in runs)
    if left:
        yield (f"and {left} more", "of other operations, kept as the others are")


def _runs(broken: Sequence[Broken], looked_at: Iterable[int]) -> list[_Run]:
    """Put states together that follow each other; those that a power failure leaves differ in what is lost, too."""
    places = {number: place for place, number in enumerate(sorted(looked_at))}
    runs: list[_Run] = []
    for one in broken:
        scene, before = one[0], runs[-1][-1] if runs else None
        if (
            before is not None
            and not scene.by_power
            and places[scene.number] == places[before[0].number] + 1
            and (scene.step, _outcome(*one)) == (before[0].step, _outcome(*before))
        ):
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def _kind(run: _Run, trace: Trace) -> tuple[object, ...]:
    """Return what states of several saves have in common, their numbers left open."""
    texts = (_sort(run[0][0], trace), _sort(run[-1][0], trace), _outcome(*run[0]))
    return (run[0][0].newest is None, *(_NUMBER.sub("N", text) for text in texts))


def _sort(scene: CrashScene, trace: Trace) -> str:
    """Return the last operation by the name that its file gets in the end, as temporary ones may be random."""
    state = trace.states[scene.number]
    done = _done(state)
    if not done:
        return ""
    last = trace.operations[done - 1]
    name = last.target or last.path or ""
    for later in trace.operations[done:]:
        if later.kind == "rename" and later.path == name:
            name = later.target
    return f"{last.kind} {name} {state.lost}"


def _row(runs: Sequence[_Run], trace: Trace) -> tuple[str, str, str]:
    """Return the numbers, what is whole and what was done; the last by the first of the states that follow each other."""
    scenes = [scene for run in runs for scene, _ in run]
    steps = sorted({scene.step for scene in scenes})
    whole = f"step {steps[0]}" if len(steps) == 1 else f"step {steps[0]} to {steps[-1]}"
    first, last = _at(runs[0][0][0], trace), _at(runs[0][-1][0], trace)
    return (
        _ranges([scene.number for scene in scenes]),
        "none" if scenes[0].newest is None else whole,
        first if first == last else f"{first} ... {last}",
    )


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers as ranges, such as `25-30, 52-57`; of more than two, the others are counted."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    text = ", ".join(f"{one[0]}-{one[-1]}" if len(one) > 1 else str(one[0]) for one in ranges[:_RANGES])
    left = sum(map(len, ranges[_RANGES:]))
    return f"{text} and {left} more" if left else text


def _at(scene: CrashScene, trace: Trace) -> str:
    """Return the last operation, by the names of its files alone."""
    state = trace.states[scene.number]
    done = _done(state)
    text = _short(trace.operations[done - 1]) if done else "nothing"
    return f"{text}, without {state.lost.replace(' the bytes of', '')}" if state.lost else text


def _done(state: CrashState) -> int:
    """Return how many operations had begun: what is lost with the power is lost first, what a kill leaves stays last."""
    return state.operations if state.lost else state.entered


def _short(operation: Operation) -> str:
    target = PurePosixPath(operation.target).name
    path = None if operation.path is None else PurePosixPath(operation.path).name
    text = replace(operation, path=path, target=target).text.partition(", bytes ")[0]
    return text if len(text) <= _SHORT else text.replace(f"rename {path} to", "rename to")


def _outcome(scene: CrashScene, found: Restarted | None) -> str:
    """Say in a few words what a restart did."""
    if found is None:
        return "not tried"
    if found.difference is not None:
        return f"wrong {found.difference.component}"
    lost = max(scene.step, scene.had) - (found.step or 0)
    return {
        "newest": f"from step {found.step}" if found.step else f"from scratch ({lost} lost)",
        "refused": f"refused: {_error(found.message)}",
        "scratch": f"from scratch ({lost} lost)",
        "older": f"from step {found.step} ({lost} lost)",
        "idle": "ended at once",
        "elsewhere": "wrong weights",
    }[found.way]


def _error(message: str) -> str:
    """Return the name of an exception without its module, or what else ended a restart."""
    name = message.partition(":")[0]
    return name if " " in name else name.rpartition(".")[2]
