"""Seeing every call of a process, and of all that it starts, that changes a directory: before the kernel carries it out.

By seccomp user notification: the thread waits until the tracer has noted what it is about to do. It takes no privileges,
and whatever writes is seen, be it Python, C++, Rust or another program.
"""

from __future__ import annotations

import errno
import os
import platform
import select
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.calls import DECODERS
from pytest_ckpt.crashes.log import LogWriter
from pytest_ckpt.crashes.place import Place
from pytest_ckpt.crashes.seen import Seen
from pytest_ckpt.crashes.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from seccompy import Filter
    from seccompy.notify import Listener, Notification

    from pytest_ckpt.records.operation import Operation

#: linux/mman.h
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_ANONYMOUS: Final = 0x20

#: linux/fs.h: the requests by which a file is made to share the bytes of another.
_CLONES: Final = (0x40049409, 0x4020940D)
#: By which argument an open tells its flags.
_OPENS: Final = {"open": 1, "openat": 2}
#: What the tracer meets where the kernel will refuse the call as well, or the thread has gone.
_REFUSED: Final = frozenset({errno.EBADF, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESRCH})
_ARCHITECTURES: Final = frozenset({"x86_64", "aarch64"})


def why_not() -> str:
    """Return why nothing can be traced here; empty where it can."""
    if sys.platform != "linux":
        return f"system calls are traced on Linux only, and this is {sys.platform}"
    if platform.machine() not in _ARCHITECTURES:
        return f"system calls are traced on x86_64 and aarch64, and this is {platform.machine()}"
    try:
        from seccompy import Action, FilterFlag, SeccompError, action_supported, flag_supported
    except ImportError:
        return "seccompy is not installed: pip install seccompy"
    try:
        able = action_supported(Action.USER_NOTIF) and flag_supported(FilterFlag.NEW_LISTENER)
    except SeccompError as error:
        return f"this kernel or container forbids seccomp: {error}"
    return "" if able else "this kernel or container has no seccomp user notification"


def _filter() -> Filter:
    """Return the filter that stops a thread in each call that may change a directory."""
    from seccompy import Filter, FilterFlag, flag_supported

    flags = FilterFlag.NEW_LISTENER
    if flag_supported(flags | FilterFlag.WAIT_KILLABLE_RECV):
        flags |= FilterFlag.WAIT_KILLABLE_RECV  # else a signal has a call begin again, and be seen twice
    made = Filter(flags=flags)
    for name in DECODERS:
        with suppress(ValueError):  # this architecture has no such call
            _add(made, name)
    for (
        request
    ) in _CLONES:  # who asks for a copy without bytes takes one with bytes where a file system has no such thing
        made.errno("ioctl", errno.EOPNOTSUPP, args={1: request})
    return made


def _add(made: Filter, name: str) -> None:
    """Have one call notified, as far as its arguments do not say that it changes nothing."""
    from seccompy import ArgCmp, CmpOp

    if name in _OPENS:
        for flag in (os.O_CREAT, os.O_TRUNC):
            made.notify(name, args=[ArgCmp(_OPENS[name], CmpOp.MASKED_EQ, flag, flag)])
    elif name == "mmap":
        writable = ArgCmp(2, CmpOp.MASKED_EQ, _PROT_WRITE, _PROT_WRITE)
        shared = ArgCmp(3, CmpOp.MASKED_EQ, _MAP_SHARED, _MAP_SHARED | _MAP_ANONYMOUS)
        made.notify(name, args=[writable, shared])
    else:
        made.notify(name)


def be_traced(channel: socket.socket) -> None:
    """Put this process, which has one thread, and all that it will start under the tracer at the channel's other end."""
    made = _filter()
    made.program  # noqa: B018 - compiled now: the process must call nothing that is stopped before it is listened to
    listener = made.load()
    assert listener is not None  # noqa: S101 - the filter has the flag for it
    socket.send_fds(channel, [b"t"], [listener.fileno()])
    listener.close()
    channel.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """What is to be traced.

    Attributes:
        root: the directory whose changes are noted.
        folder: where the log is written: `operations.jsonl` and `bytes`.
        answer: is told of each operation, with how many were noted before, and returns the number of the error with which it
            is to fail, or 0; None lets all go on.
    """

    root: Path
    folder: Path
    answer: Callable[[int, Operation], int] | None = None

    @property
    def operations(self) -> Path:
        """The file of the operations, a line each."""
        return self.folder / "operations.jsonl"

    @property
    def bytes(self) -> Path:
        """The file of the bytes that were written."""
        return self.folder / "bytes"


class Tracer:
    """Listens to one process and its descendants until the last has ended, in a thread of its own.

    Attributes:
        error: what went wrong with it; the job then goes on, and its log can't be trusted.
    """

    def __init__(self, tracing: Tracing, channel: socket.socket) -> None:
        self.error = ""
        self._tracing = tracing
        self._channel = channel
        self._thread = threading.Thread(target=self._run, name="pytest-ckpt tracer", daemon=True)

    def start(self) -> None:
        """Begin to listen, once the process has sent what is to be listened to."""
        self._thread.start()

    def finish(self, seconds: float) -> str:
        """Wait until all has been noted, and return what went wrong."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return f"the tracer had not noted all {seconds:.0f} s after the job's end"
        return self.error

    def _run(self) -> None:
        from seccompy.notify import Listener

        try:
            with self._channel:
                _, fds, _, _ = socket.recv_fds(self._channel, 1, 1)
            if not fds:
                self.error = "the job's process ended before it could be traced"
                return
            with Listener(fds[0]) as listener:
                self._listen(listener)
        except Exception as error:  # noqa: BLE001 - nobody else sees what a thread raises
            self.error = self.error or f"the tracer failed: {error!r}"

    def _listen(self, listener: Listener) -> None:
        from seccompy.syscalls import syscall_nr

        decoders = {}
        for name, decoder in DECODERS.items():
            with suppress(ValueError):
                decoders[syscall_nr(name)] = (name, decoder)
        with ExitStack() as files:
            log = LogWriter(files.enter_context(self._tracing.operations.open("w", encoding="utf-8")))
            place = Place(self._tracing.root, files.enter_context(self._tracing.bytes.open("wb")))
            for notification in _notifications(listener):
                log.seen(notification.pid)
                found = self._decoded(notification, *decoders[notification.nr], place)
                _respond(listener, notification.id, 0 if found is None else self._noted(found, notification.nr, log))

    def _noted(self, operation: Operation, call: int, log: LogWriter) -> int:
        """Note an operation, unless it is refused; return the error with which it is answered, or 0."""
        refused = 0 if self._tracing.answer is None else self._tracing.answer(log.count, operation)
        if not refused:
            log.add(operation, call)
        return refused

    def _decoded(
        self,
        notification: Notification,
        name: str,
        decoder: Callable[[Seen], Operation | None],
        place: Place,
    ) -> Operation | None:
        """Return what a call is about to do; a call that can't be understood is noted as that."""
        target = Target(notification.pid)
        try:
            found = decoder(Seen(target, notification.args, place))
            if found is None:
                return None
            process, rank = target.process, target.rank
        except OSError as error:
            if error.errno not in _REFUSED:
                self.error = self.error or f"{name} could not be followed: {error}"
            return None
        except Exception as error:  # noqa: BLE001 - the job must go on, whatever it is
            self.error = self.error or f"{name} could not be followed: {error!r}"
            return None
        return replace(
            found,
            call=name,
            process=process,
            thread=notification.pid,
            rank=rank,
            time_ns=found.time_ns or time.time_ns(),
        )


def _notifications(listener: Listener) -> Iterator[Notification]:
    """Yield each call that is stopped, until no process is left that could be."""
    from seccompy import SeccompError
    from seccompy.notify import FdFlag

    with suppress(SeccompError):  # Linux 6.6 and newer: the thread goes on where the tracer runs, at once
        listener.set_flags(FdFlag.SYNC_WAKE_UP)
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    while True:
        (_, events), *_ = poll.poll()
        if not events & select.POLLIN:
            return
        try:
            yield listener.recv()
        except SeccompError as error:
            if error.errno not in {errno.ENOENT, errno.EINTR}:  # its process was killed meanwhile
                raise


def _respond(listener: Listener, number: int, refused: int) -> None:
    from seccompy import SeccompError
    from seccompy.notify import RespFlag

    try:
        if refused:
            listener.respond(number, error=refused)
        else:
            listener.respond(number, flags=RespFlag.CONTINUE)
    except SeccompError as error:
        if error.errno != errno.ENOENT:  # its process was killed meanwhile
            raise
