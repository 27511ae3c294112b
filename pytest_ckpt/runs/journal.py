"""The journal is the file to which a job's process writes what is seen, line by line, so that a crash loses nothing."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_ckpt.crashes import UNWATCHED
from pytest_ckpt.records.codec import encode
from pytest_ckpt.runs.ownership import Ownership

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_ckpt.records.codec import Record


class Journal:
    """Appends events; only the process that is looked at writes, a forked worker of the job is silent."""

    def __init__(self, path: Path, main: int | None = None) -> None:
        self.ownership = Ownership(path.with_name("owner"), main)
        self._file = _far_away(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))

    @property
    def is_ours(self) -> bool:
        """Whether the current process is the one that is looked at."""
        return self.ownership.is_here()

    def write(self, event: str, data: Record | dict[str, Any] | None = None) -> None:
        """Append one event with its data, in one system call."""
        if self.is_ours:
            line = json.dumps({"event": event, "data": encode(data or {})}, separators=(",", ":"))
            os.write(self._file, line.encode("utf-8", "backslashreplace") + b"\n")


def _far_away(file: int) -> int:
    """Return a descriptor with the number that the tracer does not watch, in the place of another one; where it may be."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # a low limit on descriptors
            moved = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, UNWATCHED)
            os.close(file)
            return moved
    return file


def events(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a journal; a last line that was cut off by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            entry = json.loads(line)
            yield entry["event"], entry["data"]
