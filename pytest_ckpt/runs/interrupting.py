"""Where an experiment has seen enough of a job, or has it meet an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class InjectedError(RuntimeError):
    """What a job meets in the experiment of an error: of the kind that a device out of memory raises."""


class Interruption:
    """Ends a job after a number of steps, or lets it fail there.

    Args:
        after: that many steps; None for a job that is left alone.
        fails: whether the job meets an error then; else its process is ended.
        updates: how often optimizers step before the error; with several of them a step goes on after the first.
        on_error: called before the error is raised.
    """

    def __init__(
        self,
        after: int | None = None,
        *,
        fails: bool = False,
        updates: int = 0,
        on_error: Callable[[], object] = lambda: None,
    ) -> None:
        self._stop_after = None if fails else after
        self._fail_after = after if fails else None
        self._updates = updates
        self._on_error = on_error

    def is_enough(self, finished: int) -> bool:
        """Say whether the process is to be ended, with so many steps done."""
        return self._stop_after is not None and finished >= self._stop_after

    def fail(self, finished: int, updates: int) -> None:
        """Raise the error that an experiment asks for, once, where it is due.

        Raises:
            InjectedError: here and now.
        """
        if self._fail_after is None or updates < self._updates or finished < self._fail_after:
            return
        step, self._fail_after = self._fail_after + 1, None
        message = f"an error that pytest-ckpt raises in the forward pass of step {step}"
        self._on_error()
        raise InjectedError(message)
