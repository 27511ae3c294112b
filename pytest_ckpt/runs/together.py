"""Which processes of a job train together: the ranks that it has forked, or that a launcher has started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes import rank_in
from pytest_ckpt.runs import processes

if TYPE_CHECKING:
    from pathlib import Path

_STRANGERS: Final = (
    "accelerate was used in this process before the job forked its ranks: each takes itself for the only one, and writes what "
    "rank 0 alone should. Call accelerate.state.AcceleratorState._reset_state(reset_partial_state=True) before they are launched"
)


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


def strangers() -> str:
    """Say why ranks do not know each other: accelerate keeps what it found in the process that has forked them."""
    distributed, state = sys.modules.get("torch.distributed"), sys.modules.get("accelerate.state")
    if distributed is None or state is None or not (distributed.is_available() and distributed.is_initialized()):
        return ""
    alone = state.PartialState._shared_state.get("num_processes") == 1  # noqa: SLF001 - to ask it would make a new state
    return _STRANGERS if alone and distributed.get_world_size() > 1 else ""
