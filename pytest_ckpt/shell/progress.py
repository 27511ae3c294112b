"""A line on the terminal that says how far a rehearsal has come, while pytest waits for it; gone when it is over."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.runs.progress import Follower

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from pytest_ckpt.runs.progress import Going

#: Seconds between two looks.
_EVERY: Final = 1.0
#: Makes room below the line that pytest is writing, and stays in its column; terminals of the last decades know these.
_ROOM: Final = "\x1bD\x1b[A"
#: What is between them is written to the line below.
_BELOW, _BACK = "\x1b7\n", "\x1b[K\x1b8"


def progress_line(config: pytest.Config) -> ProgressLine | None:
    """Return what shows the progress in a session; None where nobody would see it, or nobody wants to."""
    is_worker = hasattr(config, "workerinput") or config.getoption("numprocesses", default=None)
    if is_worker or config.get_verbosity() < 0 or os.environ.get("TERM") == "dumb":
        return None
    line = ProgressLine(config.pluginmanager.getplugin("capturemanager"))
    return line if line.is_seen() else None


class ProgressLine:
    """One line below the one that pytest is writing."""

    def __init__(self, capture: Any) -> None:  # noqa: ANN401 - pytest gives the type of it no public name
        self._capture = capture
        self._followed: Follower | None = None
        self._journal: Path | None = None
        self._looked = self._began = 0.0
        self._from = 0
        self._shown = False

    def is_seen(self) -> bool:
        """Say whether there is a terminal."""
        if self._capture is None:
            return sys.stdout.isatty()
        with self._capture.global_and_fixture_disabled():
            return sys.stdout.isatty()

    def look(self, what: str, journal: Path) -> None:
        """Show how far a run has come, if it is a rehearsal and the last look is a second ago; called while pytest waits."""
        now = time.monotonic()
        if journal != self._journal:
            self._followed, self._journal, self._looked, self._began = Follower(journal), journal, now, 0.0
        if now - self._looked < _EVERY or self._followed is None:
            return
        self._looked, going = now, self._followed.look()
        if going.rehearsed and going.steps:
            if not self._began:
                self._began, self._from = now, going.steps
            self._show(sentence(what, going, self._speed(going, now)))

    def _speed(self, going: Going, now: float) -> float:
        seconds = now - self._began
        return (going.steps - self._from) / seconds if seconds else 0.0

    def _show(self, text: str) -> None:
        self._write(f"{_ROOM}{_BELOW}{cut(text, shutil.get_terminal_size().columns)}{_BACK}")
        self._shown = True

    def erase(self) -> None:
        """Leave the terminal as if nothing had been shown."""
        if self._shown:
            self._write(f"{_BELOW}{_BACK}")
        self._shown = False

    def _write(self, text: str) -> None:
        if self._capture is None:
            self._put(text)
            return
        with self._capture.global_and_fixture_disabled():  # sys.stdout is the terminal meanwhile
            self._put(text)

    @staticmethod
    def _put(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def sentence(what: str, going: Going, speed: float) -> str:
    """Say how far a rehearsal has come, and how long it will take as far as can be told."""
    of = f" of {going.planned}" if going.planned else ""
    told = [f"rehearsing {what}: step {going.steps}{of}"]
    if speed:
        told.append(f"{speed:.0f} steps/s")
    if speed and going.planned:
        told.append(f"{max(0, going.planned - going.steps) / speed:.0f} s to go")
    return ", ".join(told)


def cut(text: str, width: int) -> str:
    """Shorten the name in a line that would take more than one of the terminal."""
    over = len(text) - (width - 1)
    if over <= 0:
        return text
    name, separator, rest = text.rpartition(": step ")
    kept = max(0, len(name) - over - 3)
    return f"{name[:kept]}...{separator}{rest}"[: width - 1]
