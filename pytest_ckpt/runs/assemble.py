"""From a run's journal to its record: events are grouped into steps, looks, saves and facts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TYPE_CHECKING

from pytest_ckpt.records.run import FrameworkFacts, Look, SaveEvent
from pytest_ckpt.records.state import COMPONENTS, Reading, StateRecord, StepRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_Readings = dict[str, dict[str, Reading]]


@dataclass(slots=True)
class Assembled:
    """What a journal says, before it is known how the process ended."""

    steps: tuple[StepRecord, ...] = ()
    states: list[StateRecord] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    saves: list[SaveEvent] = field(default_factory=list)
    frameworks: dict[str, FrameworkFacts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    imported: tuple[str, ...] = ()
    asked: bool = False
    stopped: bool = False
    pattern: str | None = None
    end: dict[str, Any] | None = None


def assemble(events: Iterable[tuple[str, Mapping[str, Any]]]) -> Assembled:
    """Return what the events of one run amount to."""
    events = list(events)
    result = Assembled()
    steps = _Steps(_owners(events))
    for event, data in events:
        steps.take(event, data)
        _take(result, event, data)
    result.steps = steps.finished()
    return result


def _owners(events: Iterable[tuple[str, Mapping[str, Any]]]) -> frozenset[int] | None:
    """Return which modules own trained parameters, by the last word on it; None if nobody said."""
    said = [data["modules"] for event, data in events if event == "owners"]
    return frozenset(said[-1]) if said else None


def _take(result: Assembled, event: str, data: Mapping[str, Any]) -> None:  # noqa: C901 - one line per event
    match event:
        case "state":
            result.states.append(StateRecord.from_json(data))
        case "look":
            result.looks.append(Look.from_json(data))
        case "save":
            result.saves.append(SaveEvent.from_json(data))
        case "framework":
            facts = FrameworkFacts.from_json(data)
            result.frameworks[facts.name] = facts
        case "note":
            result.notes.append(data["text"])
        case "imported":
            result.imported = tuple(data["modules"])
        case "layout":
            result.pattern = data["pattern"]
        case "asked":
            result.asked = True
        case "stopped":
            result.stopped = True
        case "end":
            result.end = dict(data)


class _Steps:
    """Collects the readings of each step."""

    def __init__(self, owners: frozenset[int] | None) -> None:
        self._owners = owners
        self._data: list[dict[str, Reading]] = []
        self._data_since_look: int = 0
        self._rng: dict[str, Reading] = {}
        self._buffers: dict[str, Reading] = {}
        self._states: dict[int, _Readings] = {}
        self._ticks: dict[int, dict[str, int]] = {}
        self._claimed: dict[int, int | None] = {}
        self._skipped: dict[int, int] = {}

    def take(self, event: str, data: Mapping[str, Any]) -> None:
        """Use the events that belong to a step."""
        match event:
            case "data" if self._owners is None or data["module"] in self._owners:
                self._data.append(_component(data["readings"]))
            case "look":
                self._data_since_look = len(self._data)
            case "rng":
                self._rng = _component(data["readings"])
            case "buffers":
                self._buffers = {**_component(data), **self._buffers}
            case "tick":
                self._tick(data)
            case "ticked":
                self._add(data["step"], data["state"], first=False)
                self._add_data(data["step"])
            case "step_end":
                self._claimed[data["step"]] = data["claimed"]
                self._state(data["step"])
                self._add_data(data["step"])

    def _tick(self, data: Mapping[str, Any]) -> None:
        step = data["step"]
        ticks = self._ticks.setdefault(step, {})
        ticks[str(data["optimizer"])] = ticks.get(str(data["optimizer"]), 0) + 1
        self._add(step, data["state"], first=True)
        self._state(step).setdefault("rng", self._rng)
        self._state(step).setdefault("buffers", self._buffers)
        self._buffers = {}

    def _add(self, step: int, state: Mapping[str, Any], *, first: bool) -> None:
        """Merge readings into a step; before the update the first word counts, after it the last."""
        for name, component in state.items():
            mine = self._state(step).setdefault(name, {})
            for key, reading in _component(component).items():
                if not (first and key in mine):
                    mine[key] = reading

    def _add_data(self, step: int) -> None:
        """Give a step what entered the models since the last one."""
        mine = self._state(step).setdefault("data", {})
        self._skipped.setdefault(step, self._data_since_look)
        for batch in self._data:
            number = len({key.split(".", 1)[0] for key in mine})
            mine.update({f"{number}.{path}": reading for path, reading in batch.items()})
        self._data = []
        self._data_since_look = 0

    def _state(self, step: int) -> _Readings:
        return self._states.setdefault(step, {})

    def finished(self) -> tuple[StepRecord, ...]:
        """Return the steps in order."""
        return tuple(
            StepRecord(
                index=step,
                claimed=self._claimed.get(step),
                ticks=self._ticks.get(step, {}),
                early_batches=self._skipped.get(step, 0),
                state={name: self._states[step][name] for name in COMPONENTS if name in self._states[step]},
            )
            for step in sorted(self._states)
        )


def _component(data: Mapping[str, Any]) -> dict[str, Reading]:
    return {key: Reading.from_json(reading) for key, reading in data.items()}
