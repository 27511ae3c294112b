"""Of which moment of the training each tensor of a checkpoint is, by its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_ckpt.contracts.slowly_saved import SlowlySaved
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.state import Reading

#: How a reader calls the components of a state; the readings after an update are of the weights.
_CALLED: Final = {"update": "weights"}


def moved(one: SlowlySaved) -> Iterator[tuple[str, str, set[int]]]:
    """Yield the tensors that are of another moment: their keys, the component, and after which steps it was so."""
    known, other = _known(one.runs[2]), set(one.other_tensors)
    for key, digest in one.now.items():
        path, _, name = key.partition(":")
        component, steps = known.get(digest, ("", set()))
        is_late = one.is_late and path in one.usual.files and bool(steps) and one.asked not in steps
        if is_late or key in other:
            yield name or path, component, steps


def _known(run: RunRecord) -> Mapping[str, tuple[str, set[int]]]:
    """Return of which component and of which steps each value is that was seen in training, by its digest."""
    found: dict[str, tuple[str, set[int]]] = {}
    for name, step, reading in _seen(run):
        found.setdefault(reading.digest, (_CALLED.get(name, name), set()))[1].add(step)
    return found


def _seen(run: RunRecord) -> Iterator[tuple[str, int, Reading]]:
    """Yield what was read of the states of a run: the component, how many steps were done, and the value."""
    for step in run.steps:
        for name in ("weights", "update", "optimizer", "buffers", "ema"):
            for reading in step.state.get(name, {}).values():
                yield name, step.index - (name != "update"), reading
    for state in run.states:
        for path, reading in state.readings.items():
            yield path.partition("/")[0], state.step, reading
