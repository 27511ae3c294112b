"""The state of a training job at one step, reduced to digests that can be compared across processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pytest_ckpt.records.codec import Record

#: What a resume must bring back, in causal order: a difference in one of these at the start of a step is a root cause.
RESTORED: Final = ("data", "weights", "buffers", "optimizer", "param_groups", "lr", "scheduler", "scaler", "ema", "rng")
#: What follows from the components above within the same step.
CONSEQUENCES: Final = ("gradients", "update")
COMPONENTS: Final = RESTORED + CONSEQUENCES
#: A reading's fields where they hold nothing.
_NOTHING: Final = ("", None, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One tensor or scalar as it was seen.

    Attributes:
        digest: 32 hex digits over dtype, shape and bytes of a tensor; the text of a scalar; empty if unreadable.
        norm: Euclidean norm of a floating tensor, for messages.
        shape: the tensor's shape, absent for a scalar.
        alike: digests of the same tensor after the casts that a save may apply.
        unreadable: why the value could not be read; such a value is neither equal nor different.
    """

    digest: str = ""
    norm: float | None = None
    shape: tuple[int, ...] | None = None
    alike: tuple[str, ...] = ()
    unreadable: str = ""

    def to_json(self) -> list[Any]:
        """Return the fields in order, those at the end that hold nothing left out: there are thousands of readings a run."""
        fields: list[Any] = [self.digest, self.norm, self.shape, self.alike or None, self.unreadable or None]
        while fields[-1] is None:
            fields.pop()
        return fields

    @classmethod
    def from_json(cls, data: Any) -> Reading:  # noqa: ANN401 - JSON data
        """Build the reading from what `to_json` returned."""
        fields: list[Any] = [*data, *_NOTHING[len(data) :]]
        digest, norm, shape, alike, unreadable = fields
        return cls(
            digest=digest,
            norm=norm,
            shape=None if shape is None else tuple(shape),
            alike=tuple(alike or ()),
            unreadable=unreadable or "",
        )

    def differs_from(self, other: Reading, tolerance: float | None = None) -> bool:
        """Say whether the two are known to differ; what could not be read does not differ.

        With a tolerance, tensors of one shape agree if their norms do, and scalars if their values do, relative to the larger.
        """
        if self.unreadable or other.unreadable or self.digest == other.digest:
            return False
        if tolerance is None or self.shape != other.shape:
            return True
        mine, theirs = self._size(), other._size()
        return mine is None or theirs is None or not math.isclose(mine, theirs, rel_tol=tolerance)

    def _size(self) -> float | None:
        """Return the norm of a tensor or the value of a number."""
        if self.shape is not None:
            return self.norm
        try:
            return float(self.digest)
        except ValueError:
            return None


#: Readings of one component by key, such as a parameter's name.
Component: TypeAlias = Mapping[str, Reading]
#: Components by name (see `COMPONENTS`).
State: TypeAlias = Mapping[str, Component]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord(Record):
    """One optimizer step as the probe saw it.

    Attributes:
        index: 1 for the first step that this process trained.
        claimed: the job's own number for the step, where a framework tells it (`global_step`).
        ticks: how often each optimizer stepped, by its label; empty for an update that was skipped.
        early_batches: how many of the batches in `state["data"]` were seen before a save that lies within the step, as after
            an update that a gradient scaler skipped; a run resumed from that save does not see them.
        state: readings before the update for what a resume restores, and `gradients` and `update` after it.
    """

    index: int
    claimed: int | None = None
    ticks: Mapping[str, int] = field(default_factory=dict)
    early_batches: int = 0
    state: Mapping[str, Mapping[str, Reading]] = field(default_factory=dict)

    @property
    def batch_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensors that entered the model in this step, one per distinct input."""
        return tuple(reading.shape for reading in self.state.get("data", {}).values() if reading.shape is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRecord(Record):
    """A further state of weights or buffers between two updates: what a save there may hold.

    Attributes:
        step: how many steps were done.
        when: `start` (before the first update), `save`, `forward`, `train_end` (a framework said so) or `exit`.
        readings: the tensors whose value is new since the last reading, by `component/key`.
    """

    step: int
    when: str
    readings: Mapping[str, Reading]


def keys_that_differ(left: Component, right: Component, tolerance: float | None = None) -> tuple[str, ...]:
    """Return the keys present on one side only or known to differ, in order."""
    missing = set(left) ^ set(right)
    different = {key for key in set(left) & set(right) if left[key].differs_from(right[key], tolerance)}
    return tuple(sorted(missing | different))


def unreadable_in(state: State) -> dict[str, str]:
    """Return the reason per component of which something could not be read."""
    found: dict[str, Any] = {}
    for name, component in state.items():
        for key, reading in component.items():
            if reading.unreadable:
                found.setdefault(name, f"{key}: {reading.unreadable}")
    return found
