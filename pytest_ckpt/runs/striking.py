"""Sending a job a signal at a moment of its training, as a scheduler does before it kills."""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import TYPE_CHECKING

from pytest_ckpt.crashes.answering import kill_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.records.strike import Phase, Strike


class Striker:
    """Sends this process the signal that an experiment asks for, once, and kills it after the time of grace.

    Args:
        strike: what is asked for; None for a job that is left alone.
        told: called just before, with the number of steps done: nothing may be told afterwards.
    """

    def __init__(self, strike: Strike | None, told: Callable[[int], None]) -> None:
        self._strike = strike
        self._told = told
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
            kill_after(os.getpid(), self._strike.grace)
            os.kill(os.getpid(), getattr(signal, self._strike.signal))

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
