"""The watcher looks at the job's directory at step boundaries and records what changed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ckpt.checkpoints.store import signature
from pytest_ckpt.records.run import Look

if TYPE_CHECKING:
    from pytest_ckpt.checkpoints.store import EvidenceStore
    from pytest_ckpt.records.run import SaveEvent
    from pytest_ckpt.runs.hearing import Hearing
    from pytest_ckpt.runs.journal import Journal


class Watcher:
    """Sees the directory as a whole; a look that finds nothing new costs one scan, and says once that all is at rest."""

    def __init__(self, root: Path, store: EvidenceStore, journal: Journal, hearing: Hearing) -> None:
        self._root = root
        self._store = store
        self._journal = journal
        self._hearing = hearing
        self._last: object = None
        self._at_rest = False

    def look(self, step: int, phase: str) -> bool:
        """Record the directory if it changed since the last look, and say whether it did."""
        self._hearing.note(step, told=phase == "save")
        now = signature(self._root)
        if now == self._last:
            if not self._at_rest:
                self._journal.write("at_rest")
                self._at_rest = True
            return False
        tree = self._store.capture(self._root)
        self._last, self._at_rest = now, False
        writing = open_for_writing(self._root)
        look = Look(step=step, phase=phase, tree=tree, writing=writing, time_ns=time.time_ns())
        self._journal.write("look", look)
        return True

    def begun(self, save: SaveEvent) -> None:
        """Record that a save begins."""
        self._hearing.note(save.step)
        self._journal.write("save", save)


def open_for_writing(root: Path) -> tuple[str, ...]:
    """Return the files below `root` that this process holds open for writing, relative to it; Linux only."""
    if sys.platform != "linux":
        return ()
    found = []
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only
        try:
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").split("flags:")[1].split()[0]
        except (OSError, IndexError):
            continue
        if path.is_relative_to(root) and int(flags, 8) & (os.O_WRONLY | os.O_RDWR):
            found.append(path.relative_to(root).as_posix())
    return tuple(sorted(found))
