"""What a measurement is, and how it is shown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One promise on cost and what was measured."""

    what: str
    budget: str
    measured: str
    kept: bool


def in_turns(
    kinds: Mapping[str, Callable[[], float]],
    repeats: int,
    summary: Callable[[Sequence[float]], float] = statistics.median,
) -> dict[str, float]:
    """Take each measurement in turns, so that a slow spell of the machine meets all kinds; return one figure of each."""
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, take in kinds.items():
            taken[name].append(take())
    return {name: summary(values) for name, values in taken.items()}


def table(budgets: Sequence[Budget]) -> str:
    """Return the budgets as a Markdown table."""
    rows = [f"| {b.what} | {b.budget} | {b.measured} | {'kept' if b.kept else 'NOT kept'} |" for b in budgets]
    return "\n".join(["| what | budget | measured | |", "|---|---|---|---|", *rows])
