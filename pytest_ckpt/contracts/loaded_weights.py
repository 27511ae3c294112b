"""Whether the weights that a loader returns are those that training had in memory, parameter by parameter."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        unknown: those that equal nothing that was seen.
    """

    equal: int = 0
    stale: dict[str, tuple[int, ...]] = field(default_factory=dict)
    swapped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


class Memory:
    """The values that each parameter had between the steps, also after the casts that a save may apply."""

    def __init__(self, run: RunRecord) -> None:
        self._values: dict[str, _Values] = defaultdict(lambda: defaultdict(set))
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
        for name, reading in tensors.items():
            values = self._of(name)
            if values and reading.shape is not None and not reading.unreadable:
                self._sort_in(name, reading, values, step, found)
        return found

    def _sort_in(self, name: str, reading: Reading, values: _Values, step: int | None, found: Compared) -> None:
        steps = tuple(sorted(number for number, digests in values.items() if reading.digest in digests))
        wanted = set().union(*values.values()) if step is None else values.get(step, set())
        if reading.digest in wanted or (not steps and wanted.intersection(reading.alike)):
            found.equal += 1
        elif steps:
            found.stale[name] = steps
        elif step is not None and (other := self._other(name, reading, step)):
            found.swapped[name] = other
        else:
            found.unknown.append(name)

    def _of(self, name: str) -> _Values | None:
        """Return the values of the parameter of that name, which may have a longer one where a wrapper was trained."""
        if name in self._values:
            return self._values[name]
        longer = [values for key, values in self._values.items() if key.endswith(f".{name}")]
        return longer[0] if len(longer) == 1 else None

    def _other(self, name: str, reading: Reading, step: int) -> str:
        """Return another parameter that has this value after the step."""
        others = (key for key, values in self._values.items() if reading.digest in values.get(step, ()) and key != name)
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
