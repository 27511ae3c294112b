"""Comparing a resumed run with the uninterrupted one, step by step, in causal order."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pytest_ckpt.contracts.models import common_models, matched
from pytest_ckpt.records.state import COMPONENTS, Component, keys_that_differ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.state import Reading, StepRecord

#: How much of a resume must agree, each level including the ones before it.
Level: TypeAlias = Literal["runs", "state", "data", "exact"]
LEVELS: Final[tuple[Level, ...]] = ("runs", "state", "data", "exact")

#: What must come back with the checkpoint; random states count by what they lead to.
_STATE: Final = ("weights", "buffers", "optimizer", "param_groups", "lr", "scheduler", "scaler", "ema", "counter")
_COMPARED: Final[Mapping[Level, tuple[str, ...]]] = {
    "runs": (),
    "state": _STATE,
    "data": ("data", *_STATE),
    "exact": ("data", *_STATE, "gradients", "update"),
}
#: What a step computes, and what goes on from that into the next.
_COMPUTED: Final = frozenset({"gradients", "update"})
_UPDATED: Final = frozenset({"buffers", "optimizer", "weights"})
#: What is compared after the first resumed step: below `exact`, weights that go other ways break no promise.
_COMPARED_LATER: Final[Mapping[Level, tuple[str, ...]]] = {
    "runs": (),
    "state": (),
    "data": ("data",),
    "exact": _COMPARED["exact"],
}
#: Relative to the norm: what another order of summation changes, and hardly anything else.
LAST_BITS: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDifference:
    """The first step at which two runs differ.

    Attributes:
        step: its number in the uninterrupted run.
        keys: the keys that differ, by component, in causal order.
        expected: the step of the uninterrupted run.
        found: the same step of the resumed run.
        rng_differs: the random generators that the job uses and whose state differs at the start of the step.
    """

    step: int
    keys: Mapping[str, tuple[str, ...]]
    expected: StepRecord
    found: StepRecord
    rng_differs: tuple[str, ...] = ()

    @property
    def component(self) -> str:
        """The component to blame: the first that differs, or the random state where only its effect is seen."""
        first = next(iter(self.keys))
        return "rng" if first in {"gradients", "update"} and self.rng_differs else first

    @property
    def is_rounding(self) -> bool:
        """Whether only what was computed differs, and that by less than `LAST_BITS` of its norm."""
        if self.component not in {"gradients", "update"}:
            return False
        expected, found = self.expected.state, self.found.state
        return all(
            _relative(expected.get(name, {}).get(key), found.get(name, {}).get(key)) < LAST_BITS
            for name, keys in self.keys.items()
            for key in keys
        )


def _relative(expected: Reading | None, found: Reading | None) -> float:
    """Return the difference of two norms relative to the larger; infinity where there are none to compare."""
    if expected is None or found is None or expected.norm is None or found.norm is None:
        return math.inf
    larger = max(expected.norm, found.norm)
    return abs(expected.norm - found.norm) / larger if larger else 0.0


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The uninterrupted run, prepared for comparisons."""

    run: RunRecord
    live_schedulers: frozenset[str] = field(default=frozenset())
    live_generators: frozenset[str] = field(default=frozenset())
    known_weights: frozenset[str] = field(default=frozenset())
    tolerance: float | None = None

    @classmethod
    def of(cls, run: RunRecord, tolerance: float | None = None) -> Trajectory:
        """Return the trajectory of a baseline; with a tolerance, what was computed in a run may differ by that much."""
        weights = {
            reading.digest
            for step in run.steps
            for name in ("weights", "update")
            for reading in step.state.get(name, {}).values()
        }
        schedulers, generators = (frozenset(_changing(run.steps, name)) for name in ("scheduler", "rng"))
        return cls(run, schedulers, generators, frozenset(weights), tolerance)

    def first_difference(
        self, resumed: Sequence[StepRecord], after: int, level: Level, *, told: bool = True
    ) -> StepDifference | None:
        """Return the first difference of steps that follow step `after`, or None if they agree as far as both go.

        Args:
            resumed: the steps of the resumed run.
            after: the step whose checkpoint it started from.
            level: what has to agree.
            told: whether the job's own numbers of the steps count.
        """
        for number, step in enumerate(resumed):
            if after + number >= len(self.run.steps):
                return None
            compared = _COMPARED_LATER[level] if number else _COMPARED[level]
            expected, found = matched(self.run.steps[after + number], step)
            keys = {name: self._differ(name, expected, found, first=number == 0) for name in compared}
            keys = {name: differing for name, differing in keys.items() if differing and (told or name != "counter")}
            if keys:
                return _difference(expected, found, keys, self.live_generators)
        return None

    def _differ(self, name: str, expected: StepRecord, found: StepRecord, *, first: bool) -> tuple[str, ...]:
        if name == "counter":
            return () if expected.claimed == found.claimed else ("step",)
        left, right = expected.state.get(name, {}), found.state.get(name, {})
        match name:
            case "data":
                return batches_that_differ(left, right, expected.early_batches if first else 0)
            case "scheduler":
                return self._schedulers_that_differ(left, right)
            case "ema":
                return self._averages_that_differ(left, right)
            case "buffers" | "weights":
                left, right = common_models(left, right)
        return keys_that_differ(left, right, self._slack(name, first=first))

    def _slack(self, name: str, *, first: bool) -> float | None:
        """Return the tolerance: none for what was restored, which is what the first step starts from."""
        computed = name in _COMPUTED or (name in _UPDATED and not first)
        return self.tolerance if computed else None

    def _schedulers_that_differ(self, left: Component, right: Component) -> tuple[str, ...]:
        """Compare schedulers that advance, as sets: a dead one that was replaced may still be found."""
        values: dict[str, set[str]] = defaultdict(set)
        for key, reading in right.items():
            values[_without_number(key)].add(reading.digest)
        return tuple(
            key
            for key, reading in left.items()
            if key in self.live_schedulers and reading.digest not in values[_without_number(key)]
        )

    def _averages_that_differ(self, left: Component, right: Component) -> tuple[str, ...]:
        """Compare averages, as sets; copies of the weights themselves are none."""
        candidates = [_digests(average) for average in _averages(right).values()]
        differing: list[str] = []
        for label, average in _averages(left).items():
            mine = _digests(average)
            copies = sum(digest in self.known_weights for digest in mine.values())
            if 2 * copies < len(mine) and mine not in candidates:
                differing += [f"{label}/{key}" for key in average]
        return tuple(differing)


def batches_that_differ(left: Component, right: Component, early: int) -> tuple[str, ...]:
    """Compare the batches of one step; up to `early` leading ones may be missing in the resumed run."""
    expected, found = batches(left), batches(right)
    for skipped in range(early + 1):
        if expected[skipped:] == found:
            return ()
    numbers = [str(n) for n in range(max(len(expected), len(found))) if expected[n : n + 1] != found[n : n + 1]]
    return tuple(numbers)


def batches(component: Component) -> list[dict[str, str]]:
    """Return the digests of what entered the models, call by call."""
    calls: dict[int, dict[str, str]] = defaultdict(dict)
    for key, reading in component.items():
        number, _, path = key.partition(".")
        calls[int(number)][path] = reading.digest
    return [calls[number] for number in sorted(calls)]


def _difference(
    expected: StepRecord, found: StepRecord, keys: Mapping[str, tuple[str, ...]], generators: frozenset[str]
) -> StepDifference:
    ordered = {name: keys[name] for name in (*COMPONENTS, "counter") if name in keys}
    rng = keys_that_differ(expected.state.get("rng", {}), found.state.get("rng", {}))
    used = tuple(name for name in rng if name in generators)
    return StepDifference(step=expected.index, keys=ordered, expected=expected, found=found, rng_differs=used)


def _changing(steps: Sequence[StepRecord], component: str) -> set[str]:
    """Return the keys whose value changes in the course of a run."""
    first: dict[str, str] = {}
    changing: set[str] = set()
    for step in steps:
        for key, reading in step.state.get(component, {}).items():
            if first.setdefault(key, reading.digest) != reading.digest:
                changing.add(key)
    return changing


def _without_number(key: str) -> str:
    """Return a scheduler's key without its place in the order of discovery."""
    label, _, attribute = key.rpartition("/")
    return f"{label.rsplit('#', 1)[0]}/{attribute}"


def _averages(component: Component) -> dict[str, dict[str, Reading]]:
    found: dict[str, dict[str, Reading]] = defaultdict(dict)
    for key, reading in component.items():
        label, _, name = key.partition("/")
        found[label][name] = reading
    return found


def _digests(average: Mapping[str, Reading]) -> dict[str, str]:
    return {name: reading.digest for name, reading in average.items()}
