"""Holding back some of the calls that are stopped, as a slow disk does, while all other threads go on."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from seccompy.notify import Notification

    from pytest_ckpt.records.operation import Operation


#: Seconds for which the last calls are held back, in which the job's process ends.
_AT_THE_END: Final = 3.0


class Holding:
    """The calls that are held back, one after the other, each for the same time: a disk that is slow is so for all together.

    Args:
        seconds: for which one is held back; 0 for not at all.
        concerns: returns what a call is about to do, if it is one of those that are held back.
        is_ending: says whether the job has done all that it does, and waited for what it waits for: what is still held back
            then is held until its process has ended, or for some seconds.
    """

    def __init__(
        self, seconds: float, concerns: Callable[[Notification], Operation | None], is_ending: Callable[[], bool]
    ) -> None:
        self._seconds = seconds
        self._concerns = concerns
        self._is_ending = is_ending
        self._last = math.inf
        self._held: deque[tuple[float, Notification, Operation]] = deque()
        self._abandoned: list[Operation] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    def takes(self, notification: Notification) -> bool:
        """Hold a call back, if it is one of those; say whether it is."""
        operation = self._concerns(notification) if self._seconds else None
        if operation is None:
            return False
        begins = max(time.monotonic(), self._held[-1][0] if self._held else 0.0)
        self._held.append((begins + self._seconds, notification, operation))
        return True

    def due(self, is_there: Callable[[int], bool]) -> Notification | None:
        """Return the next call that was held back for its time; `is_there` says whether its thread still waits."""
        while self._held and max(self._held[0][0], self._until) <= time.monotonic():
            _, notification, operation = self._held.popleft()
            if is_there(notification.id):
                return notification
            self._abandoned.append(operation)
        return None

    def wait_ms(self, most: int) -> int:
        """Return how many milliseconds may pass until the next is due, at most so many."""
        if not self._held:
            return most
        return min(most, max(0, math.ceil((max(self._held[0][0], self._until) - time.monotonic()) * 1000)))

    @property
    def _until(self) -> float:
        """When the next may go on at the earliest: a job that waits as it exits, after all else, is not to wait for ever."""
        if self._last == math.inf and self._is_ending():
            self._last = time.monotonic() + _AT_THE_END
        return 0.0 if self._last == math.inf else self._last

    @property
    def abandoned(self) -> list[Operation]:
        """What was never done, as its process had ended; to be asked when nothing is left of the program."""
        return [*self._abandoned, *(operation for _, _, operation in self._held)]
