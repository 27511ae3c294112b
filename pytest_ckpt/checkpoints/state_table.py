"""The states that were seen in training, by the digests of their tensors: what a file is compared with."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_ckpt.checkpoints.updates import Updates, parameter_of, without_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.checkpoints.file_content import TensorEntry
    from pytest_ckpt.records.state import Reading, StateRecord, StepRecord

_WRAPPERS: Final = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")


class Hit(NamedTuple):
    """A state that has a tensor of this digest."""

    kind: str
    key: str
    transform: str


class Stage(NamedTuple):
    """Parameters of models that are trained together, and the first step in which they are."""

    first: int
    trained: frozenset[str]


@dataclass(slots=True)
class StateTable:
    """All tensors that were seen, by digest: which parameter, after which steps, under which change."""

    trained: frozenset[str] = frozenset()
    hits: dict[str, dict[Hit, set[int]]] = field(default_factory=lambda: defaultdict(dict))
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    last_step: int = 0
    updates: Updates = field(default_factory=Updates)
    own_names: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, steps: Sequence[StepRecord], states: Iterable[StateRecord], *, own_names: frozenset[str] = frozenset()
    ) -> StateTable:
        """Return the table of a run; `own_names` are words in keys that no wrapper need have added."""
        trained, updates = _trained(steps), Updates.of(steps)
        table = cls(
            trained, last_step=len(steps), updates=updates, own_names=own_names, stages=_stages(trained, updates)
        )
        for step in steps:
            for kind in ("weights", "optimizer", "ema"):
                table._add_all(kind, step.index - 1, step.state.get(kind, {}))
            table._add_all("weights", step.index, step.state.get("update", {}))
        for state in states:
            table._add_state(state)
        return table

    def _add_all(self, kind: str, step: int, component: Mapping[str, Reading]) -> None:
        for key, reading in component.items():
            self._add(kind, key, step, reading)

    def _add(self, kind: str, key: str, step: int, reading: Reading) -> None:
        if reading.shape is None or reading.unreadable:
            return
        key = without_place(key) if kind == "optimizer" else key
        steps = self.updates.alike(kind, key, step)
        self.shapes[f"{kind}/{key}"] = reading.shape
        self.hits[reading.digest].setdefault(Hit(kind, key, ""), set()).update(steps)
        for digest in reading.alike:
            self.hits[digest].setdefault(Hit(kind, key, "cast"), set()).update(steps)

    def _add_state(self, state: StateRecord) -> None:
        """Add a state between steps; not weights of another step that have come back, as after loading the best model."""
        for path, reading in state.readings.items():
            kind, key = path.split("/", 1)
            if kind != "weights" or Hit(kind, key, "") not in self.hits.get(reading.digest, {}):
                self._add(kind, key, state.step, reading)

    def knows(self, entry: TensorEntry) -> bool:
        """Say whether the tensor is part of some state that was seen."""
        return not is_trivial(entry) and entry.digest in self.hits

    def trains(self, entry: TensorEntry) -> bool:
        """Say whether the tensor has a value that a trained parameter had."""
        return any(hit.key in self.trained for hit in self.hits.get(entry.digest, ()) if hit.kind == "weights")

    def stages_of(self, entry: TensorEntry) -> set[Stage]:
        """Return the stages of which a tensor may be a weight or a part of the optimizer's state."""
        keys = {parameter_of(hit.kind, hit.key) for hit in self.hits.get(entry.digest, ())}
        return {stage for stage in self.stages if stage.trained & keys}

    def stage_at(self, step: int) -> Stage | None:
        """Return the stage that was the last to begin by that step."""
        return next(
            (stage for stage in reversed(self.stages) if stage.first <= step), self.stages[0] if self.stages else None
        )

    def names(self, entry: TensorEntry) -> bool:
        """Say whether the tensor has the name and shape of a trained parameter, whatever its value."""
        return any(
            entry.shape == self.shapes.get(f"weights/{key}") and plain_key(entry.key).endswith(plain_name(key))
            for key in self.trained
        )


def _stages(trained: frozenset[str], updates: Updates) -> tuple[Stage, ...]:
    """Return what is trained one after the other: models of which none is updated again when the next one is."""
    models: dict[str, set[str]] = defaultdict(set)
    for key in trained:
        models[key.split(":", 1)[0]].add(key)
    spans = sorted((*updates.span(keys), model) for model, keys in models.items())
    stages: list[Stage] = []
    until = 0
    for first, last, model in spans:
        begun = stages.pop() if stages and first <= until else Stage(first, frozenset())
        stages.append(Stage(begun.first, begun.trained | models[model]))
        until = max(until, last)
    return tuple(stages)


def is_trivial(entry: TensorEntry) -> bool:
    """Say whether a tensor is so plain (zeros, ones, nothing) that its value identifies no step."""
    if entry.numel == 0 or entry.norm is None:
        return True
    return entry.constant and (entry.norm == 0 or math.isclose(entry.norm, math.sqrt(entry.numel), rel_tol=1e-6))


def _trained(steps: Sequence[StepRecord]) -> frozenset[str]:
    """Return the parameters that had a gradient or were changed by an update: an optimizer may list frozen ones as well.

    Where neither was seen, as in a rehearsal, all that are listed count.
    """
    listed: set[str] = set()
    learned: set[str] = set()
    for step in steps:
        updated, before = step.state.get("update", {}), step.state.get("weights", {})
        listed.update(updated)
        learned.update(step.state.get("gradients", {}))
        learned.update(key for key, reading in updated.items() if reading.differs_from(before.get(key, reading)))
    return frozenset(learned & listed or listed)


def plain_key(key: str) -> str:
    """Return a key of a file without the prefixes of wrappers."""
    for wrapper in _WRAPPERS:
        key = key.replace(wrapper, "")
    return key


def plain_name(key: str) -> str:
    """Return a parameter's name without the label of the model that owns it."""
    return key.split(":", 1)[-1]
