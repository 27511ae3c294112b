"""When each parameter was updated: while other optimizers step, it and the state of its own stay as they are."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.records.state import StepRecord

#: The place of an optimizer in a step, before the key of a parameter: it is another one where others are idle.
_PLACE: Final = re.compile(r"optimizer\d+:(?=[^/]*:)")


@dataclass(frozen=True, slots=True)
class Updates:
    """The steps that changed something.

    Attributes:
        each: the steps in which each parameter was updated that was not in all of them, ascending.
        every: the steps in which anything was; an update that a gradient scaler skips is none.
        last: the last step.
    """

    each: Mapping[str, Sequence[int]] = field(default_factory=dict)
    every: Sequence[int] = ()
    last: int = 0

    @classmethod
    def of(cls, steps: Sequence[StepRecord]) -> Updates:
        """Return the updates of a run; a step of which only the ticks were counted updates all."""
        every = [step for step in steps if step.ticks]
        counts = Counter(key for step in every for key in step.state.get("update", {}))
        seen = sum("update" in step.state for step in every)
        each = {
            key: [step.index for step in every if key in step.state.get("update", {key})]
            for key, count in counts.items()
            if count < seen
        }
        return cls(each, [step.index for step in every], len(steps))

    def alike(self, kind: str, key: str, step: int) -> range:
        """Return the steps after which a tensor is the same as it is after that step: no update lies between them."""
        mine = self.each.get(parameter_of(kind, key), self.every)
        place = bisect_right(mine, step)
        return range(mine[place - 1] if place else 0, mine[place] if place < len(mine) else max(self.last, step) + 1)

    def span(self, keys: Iterable[str]) -> tuple[int, int]:
        """Return the first and the last step in which one of these parameters is updated."""
        mine = [self.each.get(key, self.every) for key in keys]
        return min(steps[0] for steps in mine), max(steps[-1] for steps in mine)


def parameter_of(kind: str, key: str) -> str:
    """Return the parameter that a weight is, or that a tensor of an optimizer's state belongs to; empty for an average."""
    return key.rpartition("/")[0] if kind == "optimizer" else key if kind == "weights" else ""


def without_place(key: str) -> str:
    """Return the key of an optimizer's state without its place in a step."""
    return _PLACE.sub("", key, count=1)
