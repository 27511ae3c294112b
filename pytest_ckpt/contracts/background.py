"""What a traced run wrote beside its training: which checkpoints, by how many operations, and how slow a disk may be for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.save_calls import is_below
from pytest_ckpt.records.slowness import Slowness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.run import RunRecord

#: For how many seconds each operation is held back at least, where there are not too many of them.
_LEAST: Final = 0.05
#: And for how many steps: something has to be trained while a save goes on.
_STEPS: Final = 3
#: How many operations' time a save waits for before it begins.
_BEFORE: Final = 5
#: Seconds that all operations are held back together, at most, and that all saves wait together.
_MOST: Final = 4.0
_REMOVES: Final = frozenset({"unlink", "rmdir", "depart"})


def held_back(run: RunRecord) -> tuple[Operation, ...]:
    """Return the operations that a slow disk holds back: all those of threads and processes that do not train."""
    return tuple(one for one in run.trace.operations if one.background) if run.trace is not None else ()


def writers(checkpoint: Checkpoint, run: RunRecord) -> tuple[Operation, ...]:
    """Return the operations by which a checkpoint was written in the background."""
    return tuple(one for one in operations_on(checkpoint, run) if one.background and one.kind not in _REMOVES)


def names_of(checkpoint: Checkpoint, run: RunRecord) -> set[str]:
    """Return the paths of what belongs to a checkpoint, those under which it was written before it got them included."""
    names = {checkpoint.path, *checkpoint.others, *checkpoint.files}
    for one in reversed(run.trace.operations if run.trace is not None else ()):
        if one.kind in {"rename", "exchange", "link"} and any(is_below(name, one.target) for name in names):
            names.update(_before(name, one) for name in tuple(names) if is_below(name, one.target))
    return names


def _before(name: str, move: Operation) -> str:
    return (move.path or "") + name.removeprefix(move.target)


def operations_on(checkpoint: Checkpoint, run: RunRecord) -> Iterator[Operation]:
    """Yield the operations on what belongs to a checkpoint, in their order."""
    names = names_of(checkpoint, run)
    for one in run.trace.operations if run.trace is not None else ():
        if one.changes and any(is_below(one.path, name) or is_below(one.target, name) for name in names):
            yield one


def slowness_for(traced: RunRecord) -> Slowness | None:
    """Return how slow the disk is to be: so that steps are trained meanwhile, and the whole takes seconds; None for no case."""
    written = [checkpoint for checkpoint in traced.written if any(writers(checkpoint, traced))]
    if not written:
        return None
    wanted = max(_LEAST, _STEPS * _seconds_of_a_step(traced))
    saves = [save for save in traced.saves if not save.in_main_thread and save.by != "open"]
    seconds = min(wanted, _MOST / len(held_back(traced)))
    begin = min(_BEFORE * wanted, _MOST / max(len(saves), len(written)))
    return Slowness(seconds=round(seconds, 4), begin=round(begin, 4))


def _seconds_of_a_step(run: RunRecord) -> float:
    """Return how long a step took, on average between the first and the last that a look came after."""
    looks = [look for look in run.looks if look.step]
    if looks and looks[-1].step > looks[0].step:
        return (looks[-1].time_ns - looks[0].time_ns) / 1e9 / (looks[-1].step - looks[0].step)
    return run.outcome.seconds / max(1, run.last_step)
