"""Sending a job a signal at a moment of its training, as a scheduler does before it kills."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING

from pytest_ckpt.crashes.answering import strike

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_ckpt.records.strike import Phase, Strike


class Striker:
    """Sends this process, and all that train with it, the signal that an experiment asks for, and kills them in the end.

    Args:
        strike: what is asked for; None for a job that is left alone.
        told: called just before, with the number of steps done: nothing may be told afterwards.
        with_others: returns the processes that train with one, itself included, and last.
    """

    def __init__(
        self, strike: Strike | None, told: Callable[[int], None], with_others: Callable[[int], Iterable[int]]
    ) -> None:
        self._strike = strike
        self._told = told
        self._with_others = with_others
        self._since: int | None = None
        self._forwards = 0

    def reached(self, phase: Phase, finished: int) -> None:
        """Send the signal if this is the moment for it; if it was before, take the time that a real step takes."""
        if self._strike is None:
            return
        if phase == "forward":
            self._forwards += 1
            if self._forwards == 1:
                self._keep_pace(finished)
            if self._forwards == 2:  # noqa: PLR2004 - the second since an optimizer stepped
                self.reached("accumulation", finished)
        elif phase == "step":
            self._forwards = 0
        if self._since is None and phase == self._strike.phase and finished >= self._strike.after:
            self._since = finished
            self._told(finished)
            strike(self._with_others(os.getpid()), self._strike)

    def _keep_pace(self, finished: int) -> None:
        """Wait, from the second step after the signal on; one in a save is sent from outside, in a known step."""
        assert self._strike is not None  # noqa: S101 - the caller has looked
        since = self._strike.after if self._strike.phase == "save" else self._since
        if since is not None and finished > since:
            time.sleep(self._strike.time / max(1, self._strike.last - since - 2))


def notice_loaders(striker: Striker, finished: Callable[[], int]) -> None:
    """Have a striker told as DataLoaders are iterated."""
    from torch.utils.data import DataLoader

    plain = DataLoader.__iter__

    @functools.wraps(plain)
    def iterated(self: DataLoader[object]) -> object:
        striker.reached("loader", finished())
        return plain(self)

    DataLoader.__iter__ = iterated  # type: ignore[method-assign,assignment]
