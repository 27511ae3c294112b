"""Modules that step their optimizers by themselves: how they do is seen in real training steps, and repeated in the others."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Batches of an epoch that are real, so that a module that does not do the same in each of them is found out.
REAL_BATCHES: Final = 16


def counts(configured: Any) -> tuple[int, int]:
    """Return how many optimizers and schedulers there are in what `configure_optimizers` returns, in any of its forms."""
    if configured is None:
        return 0, 0
    if isinstance(configured, dict):
        return 1, int("lr_scheduler" in configured)
    if not isinstance(configured, (list, tuple)):
        return 1, 0
    if configured and all(isinstance(part, (list, tuple)) for part in configured):
        return len(configured[0]), len(configured[1])
    return len(configured), sum(isinstance(part, dict) and "lr_scheduler" in part for part in configured)


class Updates:
    """Which optimizers are stepped in a training step, in order.

    Args:
        reached: is told if that differs from batch to batch.
        owner: the name of the module's class.
    """

    def __init__(self, reached: Callable[[str], None], owner: str) -> None:
        self._reached = reached
        self._owner = owner
        self._seen: tuple[int, ...] | None = None
        self._now: list[int] = []

    def made(self, number: int) -> None:
        """Note that the optimizer of that number was stepped."""
        self._now.append(number)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """See which optimizers a real training step steps."""
        self._now = []
        yield
        now = tuple(self._now)
        if self._seen is not None and now != self._seen:
            self._reached(
                f"training_step of {self._owner} does not step the same optimizers in each batch: "
                f"{_named(self._seen)} in one, {_named(now)} in another"
            )
        self._seen = now

    def repeat(self, module: Any) -> None:
        """Step the same optimizers."""
        optimizers = module.optimizers()
        for number in self._seen or ():
            (optimizers[number] if isinstance(optimizers, list) else optimizers).step()


def _named(numbers: tuple[int, ...]) -> str:
    return f"numbers {', '.join(map(str, numbers))}" if numbers else "none"


class Still:
    """A scheduler of the learning rate that has nothing to schedule."""

    def step(self, *_: object, **__: object) -> None:
        """Do nothing."""

    def get_last_lr(self) -> list[float]:
        """Return the rate of a stand-in's optimizer."""
        return [1.0]


def schedulers(count: int) -> Any:
    """Return that many schedulers as `lr_schedulers` does."""
    made = [Still() for _ in range(count)]
    return (made or None) if count != 1 else made[0]
