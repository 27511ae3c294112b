"""Which process of a job is looked at: the one that the experiment started, or the first of the ranks that it forks."""

from __future__ import annotations

import atexit
import mmap
import os
import signal
import struct
import sys
from contextlib import suppress
from multiprocessing import util
from typing import TYPE_CHECKING, Final

from pytest_ckpt.runs import processes

if TYPE_CHECKING:
    from collections.abc import Callable

#: What all processes of a job know: which of them is looked at (0 until one trains), and how many steps it has done.
_SHARED: Final = struct.Struct("=QQ")


class Ownership:
    """Says in each process of a job whether it is the one that is looked at.

    That is the one in which it was made, unless one of the processes that it forks turns out to be of rank 0 before it has
    trained itself, as launchers make them. Ranks above 0, and workers that load data, are never it.
    """

    def __init__(self) -> None:
        self._main = os.getpid()
        self._rank = os.environ.get("RANK")
        self._shared = mmap.mmap(-1, _SHARED.size)
        self._when_taken: Callable[[], None] = lambda: None

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Have something called in the process of rank 0 as it becomes the one that is looked at."""
        self._when_taken = callback

    def is_here(self) -> bool:
        """Say whether this process is the one; one of rank 0 becomes it by that."""
        owner, pid = self._owner, os.getpid()
        if owner:
            return owner == pid
        return pid == self._main or self._take_over(pid)

    def trained(self, steps: int) -> None:
        """Note in the process that is looked at how many steps it has done: from the first one on it stays so."""
        self._shared[:] = _SHARED.pack(os.getpid(), steps)

    def come_back(self) -> int | None:
        """Let the process that was started be looked at again, at its end; return the steps of the one that was meanwhile."""
        owner, steps = _SHARED.unpack(self._shared[:])
        if owner in {0, self._main}:
            return None
        self._shared[:] = _SHARED.pack(self._main, steps)
        return int(steps)

    def end_all(self, code: int) -> None:
        """End this process, and before that all others of the job: there is nobody left whom a launcher could wait for."""
        if os.getpid() != self._main:
            others = [pid for pid in processes.descendants(self._main) if pid != os.getpid()]
            for pid in (self._main, *others):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        os._exit(code)

    @property
    def _owner(self) -> int:
        return int(_SHARED.unpack(self._shared[:])[0])

    def _take_over(self, pid: int) -> bool:
        if os.getppid() != self._main or not self._is_first_rank():
            return False
        self._shared[:] = _SHARED.pack(pid, 0)
        self._when_taken()
        return True

    def _is_first_rank(self) -> bool:
        """Say whether this process has the rank 0: by torch, which knows it best, or by what its launcher has set."""
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            return bool(distributed.get_rank() == 0)
        rank = os.environ.get("RANK")
        return rank != self._rank and rank == "0"


def at_exit(callback: Callable[[], None]) -> None:
    """Have something called at the end of this process, be it one of multiprocessing's or not; once."""
    util.Finalize(None, callback, exitpriority=1)
    atexit.register(callback)
