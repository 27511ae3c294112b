"""What a crash can leave behind: the calls of a job traced, and the states of its directory between them.

A traced job tells its tracer some things by files in the folder of its run: those are named here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: A descriptor so far from those of other files that writes to it, of what is seen of a job, need not be looked at.
UNWATCHED: Final = 1000


def ending_in(folder: Path) -> Path:
    """Return the file that the job's process makes when it has done all, and waited for what it waits for."""
    return folder / "ending"


def rank_in(folder: Path, process: int) -> Path:
    """Return the file in which a process that the job has forked to train with others tells its rank."""
    return folder / f"rank-{process}"
