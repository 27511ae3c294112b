"""Looking into a thread that waits in a system call: its memory, its descriptors, and what its paths mean."""

from __future__ import annotations

import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: linux/fcntl.h: a path is relative to the current directory of the thread.
AT_FDCWD = -100

_PAGE = 4096
_CHUNK = 1 << 24
_LONGEST_PATH = 4096
#: How many threads are remembered: each has a descriptor of this process.
_MOST = 64
_VECTOR = struct.Struct("=QQ")
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A file that a thread has open.

    Attributes:
        path: where it lies now; None if it has no name any more.
        inode: its number, which is the same under every name.
        is_file: whether it is a regular file.
    """

    path: str | None
    inode: int
    size: int
    is_file: bool


class Target:
    """A thread in a system call.

    What /proc shows of it is reached from its folder there, kept open: that shows nothing more once the thread has ended,
    also where another one has got its number.

    Attributes:
        thread: its id.
        process: the id of its process.

    Raises (every method):
        OSError: it has ended, or what it passed can't be read.
    """

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self._proc = f"/proc/{thread}"
        self._folder = os.open(self._proc, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.process = int(self._status("Tgid"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        os.close(self._folder)

    @cached_property
    def rank(self) -> int | None:
        """The rank that the environment gives, with which its program was started."""
        return _rank_in(self._content("environ"))

    @cached_property
    def leads_rank(self) -> bool:
        """Whether its process is the first of its rank: it has one, and not from the process that started it."""
        with suppress(OSError):
            return self.rank is not None and self.rank != _rank_in(self._content(f"../{self._status('PPid')}/environ"))
        return False

    def memory(self, address: int, size: int) -> bytes:
        """Return bytes of its memory; fewer where that ends."""
        return self._read("mem", address, size)

    def text(self, address: int) -> str:
        """Return the path at an address."""
        found = b""
        while b"\0" not in found and len(found) <= _LONGEST_PATH:  # page by page: the next may not be mapped
            part = self.memory(address + len(found), _PAGE - (address + len(found)) % _PAGE)
            if not part:
                break
            found += part
        return os.fsdecode(found.partition(b"\0")[0])

    def vectors(self, address: int, count: int) -> bytes:
        """Return the bytes that a vector of buffers points to, one after the other."""
        table = self.memory(address, count * _VECTOR.size)
        return b"".join(self.memory(base, length) for base, length in _VECTOR.iter_unpack(table) if length)

    def link_of(self, fd: int) -> str:
        """Return what the descriptor is open on, as /proc tells it."""
        return os.readlink(f"fd/{fd}", dir_fd=self._folder)

    def descriptor(self, fd: int, name: str) -> Descriptor:
        """Return what a descriptor stands for; `name` is what it is open on."""
        status = os.stat(f"fd/{fd}", dir_fd=self._folder)
        lost = name.endswith(_DELETED) or not name.startswith("/")
        return Descriptor(
            path=None if lost else name,
            inode=status.st_ino,
            size=status.st_size,
            is_file=stat.S_ISREG(status.st_mode),
        )

    def position(self, fd: int) -> int | None:
        """Return where the next write goes; None where that is the end of the file."""
        fields = dict(line.split(b":", 1) for line in self._content(f"fdinfo/{fd}").splitlines() if b":" in line)
        return None if int(fields[b"flags"], 8) & os.O_APPEND else int(fields[b"pos"])

    def read_file(self, fd: int, offset: int | None, size: int) -> bytes:
        """Return what a copy within the kernel takes from another file."""
        start = self.position(fd) if offset is None else offset
        return self._read(f"fd/{fd}", start or 0, size)

    def absolute(self, dirfd: int, path: str) -> str:
        """Return a path as it is from the root, whatever it is relative to; links in it are not followed."""
        if path.startswith("/"):
            return self._own(path)
        base = os.readlink("cwd", dir_fd=self._folder) if dirfd == AT_FDCWD else self.link_of(dirfd)
        return f"{base}/{path}" if path else base

    def _own(self, path: str) -> str:
        """Return a path in which `self` means the thread that is looked at."""
        for name, meant in (("/proc/self/", f"/proc/{self.process}/"), ("/proc/thread-self/", f"{self._proc}/")):
            if path.startswith(name):
                return meant + path.removeprefix(name)
        return f"{self._proc}/fd/{path.removeprefix('/dev/fd/')}" if path.startswith("/dev/fd/") else path

    def _status(self, field: str) -> str:
        for line in self._content("status").splitlines():
            name, _, value = line.partition(b":")
            if name.decode() == field:
                return value.decode().strip()
        message = f"no {field} in {self._proc}/status"
        raise ProcessLookupError(message)

    def _read(self, path: str, start: int, size: int) -> bytes:
        """Return bytes of a file; fewer where it ends before, as a copy may be told to go on to the end of anything."""
        parts = []
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            while size and (part := os.pread(file, min(size, _CHUNK), start)):
                parts.append(part)
                start, size = start + len(part), size - len(part)
        finally:
            os.close(file)
        return b"".join(parts)

    def _content(self, path: str) -> bytes:
        """Return what a file of /proc says; nothing where it is not there."""
        parts = []
        with suppress(FileNotFoundError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                while part := os.read(file, _PAGE):
                    parts.append(part)
            finally:
                os.close(file)
        return b"".join(parts)


class Targets:
    """The threads that were seen in system calls last.

    Args:
        job: the process that was started first.
        told: returns the rank that a process has told, if it has.
    """

    def __init__(self, job: int = 0, told: Callable[[int], int | None] = lambda _process: None) -> None:
        self._job = job
        self._told = told
        self._ranks: dict[int, int] = {}
        self._known: dict[int, Target] = {}

    def of(self, thread: int) -> Target:
        """Return a thread; as it was when it was seen first, unless it was forgotten."""
        if thread not in self._known:
            if len(self._known) == _MOST:
                self._known.pop(next(iter(self._known))).close()
            self._known[thread] = Target(thread)
        return self._known[thread]

    def knows(self, thread: int) -> bool:
        """Say whether a thread was seen before."""
        return thread in self._known

    def rank_of(self, target: Target) -> int | None:
        """Return the rank of a thread's process: what it has told, else what its program was started with."""
        return self._ranks[target.process] if self._has_told(target.process) else target.rank

    def is_background(self, target: Target) -> bool:
        """Say whether a thread is beside those that train: the first of the job's process, and of each rank."""
        if target.thread != target.process:
            return True
        return target.process != self._job and not target.leads_rank and not self._has_told(target.process)

    def _has_told(self, process: int) -> bool:
        """Say whether a process has told a rank: it may do so at any time, and keeps it."""
        if process not in self._ranks and (rank := self._told(process)) is not None:
            self._ranks[process] = rank
        return process in self._ranks

    def forget(self, thread: int) -> None:
        """Forget a thread, which may be another one by now, or run another program."""
        found = self._known.pop(thread, None)
        if found is not None:
            found.close()

    def forget_process(self, process: int) -> None:
        """Forget all threads of a process, and its rank."""
        self._ranks.pop(process, None)
        for thread in [thread for thread, target in self._known.items() if target.process == process]:
            self.forget(thread)

    def close(self) -> None:
        """Forget all."""
        for thread in list(self._known):
            self.forget(thread)


def _rank_in(environment: bytes) -> int | None:
    """Return the rank that an environment, as /proc shows it, gives."""
    for entry in environment.split(b"\0"):
        if entry.startswith(b"RANK=") and entry[5:].isdigit():
            return int(entry[5:])
    return None


def has_left(thread: int, call: int) -> bool:
    """Say whether a thread is certainly no more in a system call of that number: it has ended, or is in another, or in none."""
    try:
        with open(f"/proc/{thread}/syscall", encoding="ascii") as file:  # noqa: PTH123 - pathlib is slow here
            now = file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(now) and now[0] not in {"running", str(call)}
