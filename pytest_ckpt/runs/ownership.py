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
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.crashes import rank_in
from pytest_ckpt.runs import processes
from pytest_ckpt.runs.together import training_with

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: What all processes of a job know: which of them is looked at (0 until one trains), and how many steps it has done.
_SHARED: Final = struct.Struct("=QQ")


class Ownership:
    """Says in each process of a job whether it is the one that is looked at.

    That is the one in which it was made, unless one of the processes that it forks, or that a program of its consists of,
    turns out to be of rank 0 before it has trained itself. Ranks above 0, and workers that load data, are never it.

    Args:
        file: by which all processes of a job know of each other; made anew by the job's own.
        main: the id of the job's own process, where this is one of a program that it has started.

    Attributes:
        is_program: whether this process is one of a program that the job has started.
    """

    def __init__(self, file: Path, main: int | None = None) -> None:
        self._main = os.getpid() if main is None else main
        self.is_program = main is not None
        self._rank = None if self.is_program else os.environ.get("RANK")
        if not self.is_program:
            file.write_bytes(bytes(_SHARED.size))
        self._folder = file.parent
        with file.open("r+b") as opened:
            self._shared = mmap.mmap(opened.fileno(), _SHARED.size)
        self._when_taken: Callable[[], None] = lambda: None
        self._is_forked = self._has_inherited = self._has_told = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """Note what rank this process has got from the one that forked it: a worker that loads data is no rank by that."""
        self._is_forked = True
        self._rank = os.environ.get("RANK")
        self._has_inherited = _distributed() is not None
        self._has_told = False

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Have something called in the process of rank 0 as it becomes the one that is looked at."""
        self._when_taken = callback

    def is_here(self, *, may_take: bool = True) -> bool:
        """Say whether this process is the one; one of rank 0 becomes it by that, unless it may not."""
        owner, pid = self._owner, os.getpid()
        if self._is_forked and may_take:
            self._tell_rank(pid)
        if owner:
            return owner == pid
        return pid == self._main or (may_take and self._take_over(pid))

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

    def with_others(self, pid: int) -> list[int]:
        """Return the processes that train with one, itself included, and last."""
        return training_with(pid, self._main, self._folder)

    @property
    def _owner(self) -> int:
        return int(_SHARED.unpack(self._shared[:])[0])

    def _take_over(self, pid: int) -> bool:
        is_one = self.is_program or os.getppid() == self._main
        if not is_one or not self._is_first_rank():
            return False
        self._shared[:] = _SHARED.pack(pid, 0)
        self._when_taken()
        return True

    def has_rank(self) -> bool:
        """Say whether this process trains with others."""
        return os.environ.get("RANK") != self._rank or _distributed() is not None

    def _is_first_rank(self) -> bool:
        """Say whether this process is of rank 0, or a program that trains alone."""
        rank = self._own_rank
        if rank is not None:
            return rank == 0
        return self.is_program and not self._is_forked and _distributed() is None and "RANK" not in os.environ

    @property
    def _own_rank(self) -> int | None:
        """The rank that this process has got itself: by torch, which knows it best, or by what its launcher has set."""
        distributed = _distributed()
        if distributed is not None:
            return None if self._has_inherited else int(distributed.get_rank())
        rank = os.environ.get("RANK", "")
        return int(rank) if rank.isdigit() and rank != self._rank else None

    def _tell_rank(self, pid: int) -> None:
        """Tell the tracer, if there is one, that this process trains, though it was forked; once."""
        rank = None if self._has_told else self._own_rank
        if rank is not None:
            self._has_told = True
            rank_in(self._folder, pid).write_text(str(rank), encoding="ascii")


def _distributed() -> Any:  # noqa: ANN401 - a module that may not be imported
    """Return torch.distributed if this process takes part in it."""
    module = sys.modules.get("torch.distributed")
    return module if module is not None and module.is_available() and module.is_initialized() else None


def at_exit(callback: Callable[[], None]) -> None:
    """Have something called at the end of this process, be it one of multiprocessing's or not; once."""
    util.Finalize(None, callback, exitpriority=1)
    atexit.register(callback)
