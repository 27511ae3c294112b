"""Whether the weights that a loader returns are those that training had in memory, parameter by parameter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.state import Reading

_Values = dict[int, set[str]]


@dataclass(slots=True)
class Compared:
    """What became of the loaded parameters.

    Attributes:
        equal: how many are as they were in memory.
        stale: those that have the value of other steps, with these.
        swapped: those that have the value of another parameter, with that.
        unknown: those that were trained and equal nothing that was seen.
    """

    equal: int = 0
    stale: dict[str, tuple[int, ...]] = field(default_factory=dict)
    swapped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class Memory:
    """The values that each parameter had between the steps, also after the casts that a save may apply."""

    def __init__(self, run: RunRecord) -> None:
        self._values: dict[str, _Values] = defaultdict(lambda: defaultdict(set))
        self._trained = {_plain(key) for step in run.steps for key in step.state.get("update", {})}
        for step, key, reading in _seen(run):
            if reading.shape is not None and not reading.unreadable:
                self._values[_plain(key)][step].update((reading.digest, *reading.alike))
        for values in self._values.values():
            for step in range(1, run.last_step + 1):  # what is not trained, and what a skipped update left
                if step not in values and step - 1 in values:
                    values[step] = values[step - 1]

    def compare(self, tensors: Mapping[str, Reading], step: int | None) -> Compared:
        """Compare what was loaded with the state after a step; None where any step will do.

        A tensor that is no parameter of what was trained, such as a buffer, is left out.
        """
        found = Compared()
        for name, mine in self._names(tensors).items():
            if tensors[name].shape is not None and not tensors[name].unreadable:
                self._sort_in(name, mine, tensors[name], step, found)
        return found

    def _sort_in(self, name: str, mine: str, reading: Reading, step: int | None, found: Compared) -> None:
        values = self._values[mine]
        steps = tuple(sorted(number for number, digests in values.items() if reading.digest in digests))
        wanted = set().union(*values.values()) if step is None else values.get(step, set())
        if reading.digest in wanted or (not steps and wanted.intersection(reading.alike)):
            found.equal += 1
        elif steps:
            found.stale[name] = steps
        elif step is not None and (other := self._other(mine, reading, step)):
            found.swapped[name] = other
        elif mine in self._trained:
            found.unknown.append(name)

    def _names(self, loaded: Iterable[str]) -> dict[str, str]:
        """Return the names in memory of what was loaded; where a wrapper was trained, all of them are longer."""
        same = {name: name for name in loaded if name in self._values}
        if same:
            return same
        longer = {name: [key for key in self._values if key.endswith(f".{name}")] for name in loaded}
        return {name: keys[0] for name, keys in longer.items() if len(keys) == 1}

    def _other(self, mine: str, reading: Reading, step: int) -> str:
        """Return another parameter that has this value after the step."""
        others = (key for key, values in self._values.items() if reading.digest in values.get(step, ()) and key != mine)
        return next(others, "")


def _seen(run: RunRecord) -> Iterator[tuple[int, str, Reading]]:
    """Yield what was read of weights and their averages: after how many steps, the key, the reading."""
    for step in run.steps:
        for kind, after in (("weights", step.index - 1), ("ema", step.index - 1), ("update", step.index)):
            for key, reading in step.state.get(kind, {}).items():
                yield after, key, reading
    for state in run.states:
        for path, reading in state.readings.items():
            kind, key = path.split("/", 1)
            if kind in {"weights", "ema"}:
                yield state.step, key, reading


def _plain(key: str) -> str:
    """Return a parameter's name without the labels of its model and its average."""
    return key.split("/", 1)[-1].split(":", 1)[-1]
