"""What evaluations of a rehearsal answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ckpt.frameworks.protocol import Metric, OneMetric


class Script:
    """What evaluations answer, one after the other; for every metric alike, or for each by its name."""

    def __init__(self, metric: Metric) -> None:
        self._named = dict(metric) if isinstance(metric, Mapping) else {}
        self._default = 1.0 if isinstance(metric, Mapping) or metric is None else metric
        self._asked = 0
        self._step = -1

    def answer(self, step: int, names: Iterable[str]) -> dict[str, float]:
        """Return the values of an evaluation made after `step` steps: of these metrics, and of all that are named.

        Several data sets that are evaluated after the same step are one evaluation.
        """
        self._asked += step != self._step
        self._step = step
        return {
            name: self._value(self._named.get(name, self._default), step)
            for name in {**dict.fromkeys(names), **self._named}
        }

    def in_training(self, step: int, name: str) -> float:
        """Return the value of a metric that is logged in training; a list of values is one for evaluations."""
        values = self._named.get(name, self._default)
        return self._value(values, step) if callable(values) or isinstance(values, (int, float)) else 1.0

    def _value(self, values: OneMetric, step: int) -> float:
        if callable(values):
            return float(values(step))
        if isinstance(values, (int, float)):
            return float(values)
        return float(values[min(self._asked, len(values)) - 1])

    def __str__(self) -> str:
        if not self._named:
            return _text(self._default)
        return "; ".join(f"{name} {_text(values)}" for name, values in self._named.items())


def _text(values: OneMetric) -> str:
    if callable(values):
        return "by a function of the step"
    if isinstance(values, (int, float)):
        return f"always {values:g}"
    return ", ".join(f"{value:g}" for value in values[:5]) + (" ..." if len(values) > 5 else "")  # noqa: PLR2004 - enough
