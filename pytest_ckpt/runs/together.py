"""Which processes of a job train together: the ranks that it has forked, or that a launcher has started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.crashes import rank_in
from pytest_ckpt.runs import processes

if TYPE_CHECKING:
    from pathlib import Path


def training_with(process: int, root: int, folder: Path) -> list[int]:
    """Return all ranks below a process, and a certain process, which comes last.

    Args:
        process: one that trains, alone perhaps.
        root: the process of the job, or one above it.
        folder: where those that the job forks tell their ranks.
    """
    parents = processes.descendants(root)
    found = [pid for pid, parent in parents.items() if rank_in(folder, pid).exists() or _leads_rank(pid, parent)]
    return [*(pid for pid in found if pid != process), process]


def _leads_rank(process: int, parent: int) -> bool:
    """Say whether a process was started with a rank, and its parent with none, or with another."""
    rank = processes.environment_of(process).get("RANK")
    return rank is not None and rank != processes.environment_of(parent).get("RANK")
