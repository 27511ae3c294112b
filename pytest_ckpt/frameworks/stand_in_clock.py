"""The clock of a rehearsal: it stands still, and each optimizer step moves it on by as long as a real one takes.

freezegun does that, as it covers `time.monotonic`, by which Lightning saves and stops. It belongs to the job's process alone:
pytest and the supervisor of the job keep their own.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pytest_ckpt.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """Replaces the clock of this process where a step is said to take time; else it leaves everything alone."""

    def __init__(self, seconds_per_step: float | None) -> None:
        """Look for what is needed.

        Raises:
            HarnessError: it is not installed.
        """
        self._step = None if seconds_per_step is None else timedelta(seconds=seconds_per_step)
        self._freeze_time = None if self._step is None else _freezegun().freeze_time
        self._frozen: Any = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the process see this clock meanwhile, which goes on from the real time."""
        if self._freeze_time is None:
            yield
            return
        now = datetime.now(timezone.utc)
        freezing = self._freeze_time(now, tz_offset=now.astimezone().utcoffset(), real_asyncio=True)
        with _without_lazy_modules():
            self._frozen = freezing.start()
        try:
            yield
        finally:
            self._frozen = None
            with _without_lazy_modules():
                freezing.stop()

    def tick(self) -> None:
        """Move it on by a step."""
        if self._frozen is not None:
            self._frozen.tick(self._step)


def _freezegun() -> Any:
    try:
        import freezegun
    except ImportError as error:
        message = (
            "seconds_per_step moves the clock of the job's process by freezegun, which is not installed; "
            "pip install pytest-ckpt[clock]"
        )
        raise HarnessError(message) from error
    return freezegun


@contextmanager
def _without_lazy_modules() -> Iterator[None]:
    """Hide modules that import others as their names are listed: freezegun looks at every name of every module."""
    lazy = {
        name: module
        for name, module in sys.modules.items()
        if type(module) is not ModuleType or "__dir__" in vars(module)
    }
    for name in lazy:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.update(lazy)
