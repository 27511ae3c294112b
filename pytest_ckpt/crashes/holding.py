"""Holding back some of the calls that are stopped, as a slow disk does, while all other threads go on."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from seccompy.notify import Notification

    from pytest_ckpt.records.operation import Operation


class Holding:
    """The calls that are held back, one after the other, each for the same time: a disk that is slow is so for all together.

    Args:
        seconds: for which one is held back; 0 for not at all.
        concerns: returns what a call is about to do, if it is one of those that are held back.
    """

    def __init__(self, seconds: float, concerns: Callable[[Notification], Operation | None]) -> None:
        self._seconds = seconds
        self._concerns = concerns
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
        while self._held and self._held[0][0] <= time.monotonic():
            _, notification, operation = self._held.popleft()
            if is_there(notification.id):
                return notification
            self._abandoned.append(operation)
        return None

    def wait_ms(self, most: int) -> int:
        """Return how many milliseconds may pass until the next is due, at most so many."""
        if not self._held:
            return most
        return min(most, max(0, math.ceil((self._held[0][0] - time.monotonic()) * 1000)))

    @property
    def abandoned(self) -> list[Operation]:
        """What was never done, as its process had ended; to be asked when nothing is left of the program."""
        return [*self._abandoned, *(operation for _, _, operation in self._held)]
