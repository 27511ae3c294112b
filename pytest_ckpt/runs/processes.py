"""The processes below this one: found in /proc, collected as they end, killed when they must go.

A supervisor is a *child subreaper* (Linux): what its descendants leave behind becomes its own child. So it has no child
left exactly when nothing of a job is left, in whatever session or process group that hid.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import stat
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, cast

from pytest_ckpt.records.codec import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_COMMAND_LIMIT: Final = 300
_CHANNEL_NAME: Final = b"\0pytest-ckpt/run/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover(Record):
    """A process that was still alive when the job's main process had ended, and that was then killed.

    Attributes:
        pid: its process id, for a look into logs.
        command: its command line; a process forked without exec shows that of pytest.
    """

    pid: int
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Record):
    """How the job's process ended.

    Attributes:
        exit_code: what it left with; None if a signal ended it.
        signal: number of the signal that ended it; SIGKILL is also what a job gets that ran out of time.
        timed_out: whether it was still running at its deadline.
        leftovers: its descendants that outlived it and did not go by themselves.
        seconds: from its start to its end.
        untraced: why the log of its operations can't be trusted; empty where it can, and where none was asked for.
    """

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    leftovers: tuple[Leftover, ...] = ()
    seconds: float = 0.0
    untraced: str = ""

    @classmethod
    def of(cls, code: int, *, timed_out: bool, leftovers: tuple[Leftover, ...], seconds: float) -> Self:
        """Build the record from an exit code that is negative for a signal, as `subprocess` has it."""
        return cls(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            timed_out=timed_out,
            leftovers=leftovers,
            seconds=round(seconds, 3),
        )


@cache
def prctl_function() -> Callable[..., int]:
    """Return the C library's `prctl`; the first call loads it, which a child forked from a thread had better not do."""
    function: Any = ctypes.CDLL(None, use_errno=True).prctl
    function.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return cast("Callable[..., int]", function)


def _prctl(option: int, value: int) -> None:
    if prctl_function()(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")


def become_subreaper() -> None:
    """Let every orphan among the descendants of this process become its child."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it from its only thread, ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        os.kill(os.getpid(), signal.SIGKILL)


def _parents() -> dict[int, int]:
    """Map every living process to its parent."""
    found = {}
    for name in _numbers_in("/proc"):
        _, _, after_name = _read(f"/proc/{name}/stat").rpartition(")")  # a process may put anything into its name
        state, parent, *more = after_name.split() or ("X", "0")
        # Where only the main thread has ended, /proc says zombie too.
        if state not in {"Z", "X"} or (state == "Z" and int(more[15]) > 1):
            found[int(name)] = int(parent)
    return found


def _numbers_in(folder: str) -> list[str]:
    """Return the names in a folder of /proc that stand for processes, threads or descriptors."""
    with suppress(OSError):
        return [name for name in os.listdir(folder) if name.isdecimal()]  # noqa: PTH208 - pathlib is slow here
    return []


def _read(path: str) -> str:
    """Return the text of a file in /proc, empty if its process has ended meanwhile."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - pathlib is slow here
        return file.read()
    return ""


def descendants(root: int) -> dict[int, int]:
    """Map each living process below `root` to its parent, parents before children."""
    below = defaultdict(list)
    for pid, parent in _parents().items():
        below[parent].append(pid)
    return dict(_walk(root, below))


def _walk(root: int, below: Mapping[int, list[int]]) -> Iterator[tuple[int, int]]:
    level = [root]
    while level:
        pairs = [(pid, parent) for parent in level for pid in below.get(parent, ())]
        yield from pairs
        level = [pid for pid, _ in pairs]


def command_of(pid: int) -> str:
    """Return the command line of a process, cut to a readable length, or else its name in brackets."""
    line = " ".join(_read(f"/proc/{pid}/cmdline").replace("\0", " ").split())
    return line[:_COMMAND_LIMIT] or f"[{_read(f'/proc/{pid}/comm').strip() or '?'}]"


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment with which the program of a process was started; empty if it has ended."""
    return dict(entry.split("=", 1) for entry in _read(f"/proc/{pid}/environ").split("\0") if "=" in entry)


def catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal, which would otherwise end it."""
    return _has(f"/proc/{pid}/status", number, "SigCgt")


def is_handling(pid: int, number: int) -> bool:
    """Say whether a signal is on its way to a process, or blocked in a thread because its handler runs there."""
    tasks = f"/proc/{pid}/task"
    return any(_has(f"{tasks}/{tid}/status", number, "ShdPnd", "SigPnd", "SigBlk") for tid in _numbers_in(tasks))


def _has(status: str, number: int, *masks: str) -> bool:
    """Say whether one of the signal masks in a status file contains a signal."""
    fields = dict(line.split(":", 1) for line in _read(status).splitlines() if ":" in line)
    return any(int(fields[mask], 16) >> (number - 1) & 1 for mask in masks if mask in fields)


def open_descriptors() -> list[int]:
    """Return the numbers of this process's open file descriptors (one of them is gone: it read the list)."""
    return [int(name) for name in _numbers_in("/proc/self/fd")]


def open_channel() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a channel to a supervisor, named so that a job can tell them, and no standard descriptors."""
    import fcntl  # not on Windows, which imports this module too

    ends = []
    for pair_end in socket.socketpair():
        with pair_end:
            ends.append(socket.socket(fileno=fcntl.fcntl(pair_end, fcntl.F_DUPFD_CLOEXEC, 3)))
        with suppress(OSError):  # where a sandbox forbids names, jobs that run side by side keep each other's channel
            ends[-1].bind(_CHANNEL_NAME + os.urandom(8).hex().encode())
    return ends[0], ends[1]


def close_channels() -> None:
    """Close every channel that this process has inherited, those of runs in other threads of pytest included."""
    for fd in open_descriptors():
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode) and _name_of(fd).startswith(_CHANNEL_NAME):
                os.close(fd)


def _name_of(fd: int) -> bytes:
    probe = socket.socket(fileno=fd)
    try:
        name = probe.getsockname()
    finally:
        probe.detach()
    return name if isinstance(name, bytes) else b""


class Children:
    """The children of this process, orphans among its descendants included; none of them stays a zombie.

    Takes over SIGCHLD, so a process has one such object, in its main thread.
    """

    def __init__(self, job: int) -> None:
        self.any_left = True
        self.job_status: int | None = None
        self._job = job
        self._wake, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def collect(self) -> None:
        """Take notice of every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.any_left = False
                return
            if pid == self._job:
                self.job_status = status
            if pid == 0:
                self.any_left = True
                return

    def wait(self, seconds: float, channel: socket.socket | None = None) -> bool:
        """Sleep until a child ends, the channel has something to say or the time is up; say whether the channel had."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if channel is not None:
            poll.register(channel, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)}
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)
        self.collect()
        return channel is not None and channel.fileno() in ready

    def kill_all(self, bound: float) -> tuple[Leftover, ...]:
        """Kill everything below this process, and return what that was besides the job.

        Only children are killed, whose ids cannot have been given to others before they are collected; their own
        children thereby become ours, for the next round.

        Args:
            bound: seconds after which to give up; `any_left` then stays true.
        """
        commands: dict[int, str] = {}
        deadline = time.monotonic() + bound
        self.collect()
        if self.job_status is None:
            os.kill(self._job, signal.SIGKILL)
        while self.any_left and time.monotonic() < deadline:
            for pid, parent in descendants(os.getpid()).items():
                commands.setdefault(pid, command_of(pid))
                if parent == os.getpid():
                    with suppress(PermissionError):  # it runs as another user
                        os.kill(pid, signal.SIGKILL)
            self.wait(0.02)
        return tuple(Leftover(pid=pid, command=text) for pid, text in commands.items() if pid != self._job)
