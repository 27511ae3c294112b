"""Which model is which in two processes: they are numbered as each is met, and a resumed one may not meet the first ones."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ckpt.records.state import Component, StepRecord

#: Components with keys that begin with a model's label, of the optimizer after its place in the step.
_LABELLED: Final = ("weights", "buffers", "optimizer", "gradients", "update")
_LABEL: Final = re.compile(r"^(optimizer\d+:)?([^:/]+)(?=:)")


def matched(left: StepRecord, right: StepRecord) -> tuple[StepRecord, StepRecord]:
    """Return two steps with models of the same names; where one updates only what the other does, they have them already.

    A run may be stopped within a step, before all of its optimizers have stepped.
    """
    mine, theirs = (_labels(step.state.get("update", {})) for step in (left, right))
    return (left, right) if mine <= theirs or theirs <= mine else (_by_place(left), _by_place(right))


def _by_place(step: StepRecord) -> StepRecord:
    """Return a step with its models numbered among those that take part in it, the ones that it updates first."""
    labels = {label for name in _LABELLED for label in _labels(step.state.get(name, {}))}
    if not any("#" in label for label in labels):
        return step
    updated = _labels(step.state.get("update", {}))
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for label in sorted(labels, key=lambda label: (label not in updated, *_kind_and_number(label))):
        kind, _ = _kind_and_number(label)
        counts[kind] += 1
        names[label] = kind if counts[kind] == 1 else f"{kind}#{counts[kind]}"
    state = {name: _renamed(part, names) if name in _LABELLED else part for name, part in step.state.items()}
    return replace(step, state=state)


def _labels(component: Component) -> set[str]:
    return {match[2] for key in component if (match := _LABEL.match(key))}


def _kind_and_number(label: str) -> tuple[str, int]:
    kind, _, number = label.partition("#")
    return kind, int(number or 1)


def _renamed(component: Component, names: Mapping[str, str]) -> Component:
    return {_LABEL.sub(lambda m: (m[1] or "") + names[m[2]], key, count=1): part for key, part in component.items()}


def common_models(left: Component, right: Component) -> tuple[Component, Component]:
    """Keep the readings of models that both sides know: one that is used later in a step may not be known yet."""
    labels = {key.split(":", 1)[0] for key in left} & {key.split(":", 1)[0] for key in right}
    if not labels:
        return left, right
    return (
        {key: reading for key, reading in left.items() if key.split(":", 1)[0] in labels},
        {key: reading for key, reading in right.items() if key.split(":", 1)[0] in labels},
    )
