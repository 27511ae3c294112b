"""From a run's journal to its record: events are grouped into steps, looks, saves and facts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pytest_ckpt.records.loading import Loading
from pytest_ckpt.records.rehearsal import Rehearsal
from pytest_ckpt.records.run import FrameworkFacts, Look, SaveEvent
from pytest_ckpt.records.state import COMPONENTS, Reading, StateRecord, StepRecord
from pytest_ckpt.records.strike import Struck
from pytest_ckpt.runs.hearing import Heard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_Readings = dict[str, dict[str, Reading]]


@dataclass(slots=True)
class Assembled:
    """What a journal says, before it is known how the process ended."""

    steps: tuple[StepRecord, ...] = ()
    states: list[StateRecord] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    saves: list[SaveEvent] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    frameworks: dict[tuple[str, str | None], FrameworkFacts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    imported: tuple[str, ...] = ()
    asked: set[str] = field(default_factory=set)
    own_names: frozenset[str] = frozenset()
    allowed: tuple[str, ...] = ()
    loading: Loading | None = None
    rehearsal: Rehearsal | None = None
    reached: dict[str, None] = field(default_factory=dict)
    stopped: bool = False
    pattern: str | None = None
    scores: dict[int, float] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    struck: Struck | None = None
    is_rank: bool = False


def assemble(events: Iterable[tuple[str, Mapping[str, Any]]]) -> Assembled:
    """Return what the events of one run amount to."""
    events = list(events)
    result = Assembled()
    steps = _Steps(_owners(events), frozenset(data["call"] for event, data in events if event == "trained_on"))
    for event, data in events:
        steps.take(event, data)
        _take(result, event, data)
        if event == "score":
            result.scores[steps.done] = data["value"]
    names = next((data for event, data in events if event == "renamed"), {})
    result.steps = steps.finished(names)
    if result.rehearsal is not None:
        result.rehearsal = replace(result.rehearsal, reached=tuple(result.reached))
    result.states = [_renamed_state(state, names) for state in result.states]
    return result


def _renamed_state(state: StateRecord, names: Mapping[str, str]) -> StateRecord:
    readings = {}
    for path, reading in state.readings.items():
        kind, key = path.split("/", 1)
        readings[f"{kind}/{_renamed(key, names)}"] = reading
    return replace(state, readings=readings)


def _renamed(key: str, names: Mapping[str, str]) -> str:
    """Return a key such as `optimizer0:group0.1/exp_avg` with the name that the parameter has in its model."""
    head, slash, rest = key.partition("/")
    if head in names:
        return names[head] + slash + rest
    optimizer, colon, name = head.partition(":")
    return f"{optimizer}{colon}{names[name]}{slash}{rest}" if name in names else key


def _owners(events: Iterable[tuple[str, Mapping[str, Any]]]) -> frozenset[int] | None:
    """Return which modules own trained parameters, by the last word on it; None if nobody said."""
    said = [data["modules"] for event, data in events if event == "owners"]
    return frozenset(said[-1]) if said else None


def _take(result: Assembled, event: str, data: Mapping[str, Any]) -> None:  # noqa: C901, PLR0912 - one line per event
    match event:
        case "state":
            result.states.append(StateRecord.from_json(data))
        case "look":
            result.looks.append(Look.from_json(data))
        case "at_rest":
            result.looks[-1] = replace(result.looks[-1], at_rest=True)
        case "save":
            result.saves.append(SaveEvent.from_json(data))
        case "heard":
            result.heard.append(Heard.from_json(data))
        case "framework":
            facts = FrameworkFacts.from_json(data)
            result.frameworks[facts.name, facts.save_dir] = facts
        case "note":
            result.notes.append(data["text"])
        case "imported":
            result.imported = tuple(data["modules"])
        case "layout":
            result.pattern = data["pattern"]
        case "names":
            result.own_names, result.allowed = frozenset(data["own"]), tuple(data["allowed"])
        case "loaded":
            result.loading = Loading.from_json(data)
        case "rehearsal":
            result.rehearsal = Rehearsal.from_json(data)
        case "reached":
            result.reached[data["what"]] = None
        case "asked":
            result.asked.add(data["what"])
        case "struck":
            result.struck = Struck.from_json(data)
        case "rank":
            result.is_rank = True
        case "stopped":
            result.stopped = True
        case "end":
            result.end = dict(data)


@dataclass(frozen=True, slots=True)
class _Forward:
    """One outermost forward pass: what entered from outside, and the state in which it began."""

    data: dict[str, Reading]
    rng: dict[str, Reading]
    buffers: dict[str, Reading]


def _first_of_each(components: Iterable[dict[str, Reading]]) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for component in components:
        found = {**component, **found}
    return found


class _Steps:
    """Collects the readings of each step.

    Args:
        owners: numbers of the modules that own trained parameters; None if nobody said.
        trained_on: forward passes that a backward pass came back to; none if that was never seen.
    """

    def __init__(self, owners: frozenset[int] | None, trained_on: frozenset[int]) -> None:
        self._owners = owners
        self._trained_on = trained_on
        self._forwards: list[_Forward] = []
        self._early: int = 0
        self._states: dict[int, _Readings] = {}
        self._ticks: dict[int, dict[str, int]] = {}
        self._claimed: dict[int, int | None] = {}
        self._skipped: dict[int, int] = {}
        self._done: set[int] = set()

    @property
    def done(self) -> int:
        """How many steps have ended so far."""
        return max(self._done, default=0)

    def take(self, event: str, data: Mapping[str, Any]) -> None:
        """Use the events that belong to a step."""
        match event:
            case "data" if self._counts(data):
                self._forwards.append(_Forward(*(_component(data[name]) for name in ("readings", "rng", "buffers"))))
            case "look":  # a resume from what was saved here starts with the next forward pass
                self._early = len(self._forwards)
            case "tick":
                self._tick(data)
            case "averages":
                self._state(data["step"])["ema"] = _component(data["readings"])
            case "ticked":
                self._done.add(data["step"])
                self._add(data["step"], data["state"], first=False)
                self._add_data(data["step"])
            case "step_end":
                self._done.add(data["step"])
                self._claimed[data["step"]] = data["claimed"]
                if "ticks" in data:
                    self._ticks.setdefault(data["step"], {"0": data["ticks"]})
                self._state(data["step"])
                self._add_data(data["step"])

    def _counts(self, data: Mapping[str, Any]) -> bool:
        owned = self._owners is None or data["module"] in self._owners
        return owned and (not self._trained_on or data["call"] in self._trained_on)

    def _tick(self, data: Mapping[str, Any]) -> None:
        step = data["step"]
        ticks = self._ticks.setdefault(step, {})
        ticks[str(data["optimizer"])] = ticks.get(str(data["optimizer"]), 0) + 1
        self._add(step, data["state"], first=True)
        begun = self._forwards[self._early :] or self._forwards
        self._state(step).setdefault("rng", begun[0].rng if begun else _component(data["rng"]))
        self._add_buffers(step, begun)

    def _add_buffers(self, step: int, begun: Sequence[_Forward]) -> None:
        """Give a step the buffers that its first forward passes found, be they in the optimizer's closure."""
        if begun:
            self._state(step).setdefault("buffers", _first_of_each(forward.buffers for forward in begun))

    def _add(self, step: int, state: Mapping[str, Any], *, first: bool) -> None:
        """Merge readings into a step; before the update the first word counts, after it the last."""
        for name, component in state.items():
            mine = self._state(step).setdefault(name, {})
            for key, reading in _component(component).items():
                if not (first and key in mine):
                    mine[key] = reading

    def _add_data(self, step: int) -> None:
        """Give a step what entered the models since the last one."""
        self._add_buffers(step, self._forwards)
        mine = self._state(step).setdefault("data", {})
        self._skipped.setdefault(step, self._early)
        for forward in self._forwards:
            number = len({key.split(".", 1)[0] for key in mine})
            mine.update({f"{number}.{path}": reading for path, reading in forward.data.items()})
        self._forwards = []
        self._early = 0

    def _state(self, step: int) -> _Readings:
        return self._states.setdefault(step, {})

    def finished(self, names: Mapping[str, str]) -> tuple[StepRecord, ...]:
        """Return the finished steps in order, their keys with the proper names of parameters."""
        return tuple(
            StepRecord(
                index=step,
                claimed=self._claimed.get(step),
                ticks=self._ticks.get(step, {}),
                early_batches=self._skipped.get(step, 0),
                state={
                    name: {_renamed(key, names): reading for key, reading in self._states[step][name].items()}
                    for name in COMPONENTS
                    if name in self._states[step]
                },
            )
            for step in sorted(self._states.keys() & self._done)
        )


def _component(data: Mapping[str, Any]) -> dict[str, Reading]:
    return {key: Reading.from_json(reading) for key, reading in data.items()}
