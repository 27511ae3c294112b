"""Seeing every call of a process, and of all that it starts, that changes a directory: before the kernel carries it out.

By seccomp user notification: the thread waits until the tracer has noted what it is about to do. It takes no privileges,
and whatever writes is seen, be it Python, C++, Rust or another program.
"""

from __future__ import annotations

import errno
import select
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.calls import DECODERS
from pytest_ckpt.crashes.log import LogWriter
from pytest_ckpt.crashes.place import Place
from pytest_ckpt.crashes.seen import Seen
from pytest_ckpt.crashes.stopping import EXECS
from pytest_ckpt.crashes.target import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from seccompy.notify import Listener, Notification

    from pytest_ckpt.records.operation import Operation

#: linux/seccomp.h: how the listener and the threads wake each other.
_SET_FLAGS: Final = 0x40082104
#: What the tracer meets where the kernel will refuse the call as well, or the thread has gone.
_REFUSED: Final = frozenset({errno.EBADF, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESRCH})
#: Milliseconds without a call after which the log is written.
_IDLE_MS: Final = 10


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
        execs = {syscall_nr(name) for name in EXECS}
        with ExitStack() as files:
            log = LogWriter(files.enter_context(self._tracing.operations.open("w", encoding="utf-8")))
            files.callback(log.flush)
            place = Place(self._tracing.root, files.enter_context(self._tracing.bytes.open("wb")))
            targets = files.enter_context(closing(Targets()))
            for notification in _notifications(listener, idle=log.flush):
                log.seen(notification.pid)
                if notification.nr in execs:
                    _forget(notification.pid, targets)
                    _respond(listener, notification.id, 0)
                    continue
                found = self._decoded(notification, *decoders[notification.nr], place, targets)
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
        targets: Targets,
    ) -> Operation | None:
        """Return what a call is about to do; a call that can't be understood is noted as that."""
        known = targets.knows(notification.pid)
        try:
            return _operation(notification, name, decoder, place, targets)
        except OSError as error:
            if known:  # by a number that was another thread's, perhaps
                targets.forget(notification.pid)
                return self._decoded(notification, name, decoder, place, targets)
            if error.errno not in _REFUSED:
                self.error = self.error or f"{name} could not be followed: {error}"
        except Exception as error:  # noqa: BLE001 - the job must go on, whatever it is
            self.error = self.error or f"{name} could not be followed: {error!r}"
        return None


def _operation(
    notification: Notification,
    name: str,
    decoder: Callable[[Seen], Operation | None],
    place: Place,
    targets: Targets,
) -> Operation | None:
    """Return what a call is about to do."""
    target = targets.of(notification.pid)
    found = decoder(Seen(target, notification.args, place))
    if found is None:
        return None
    return replace(
        found,
        call=name,
        process=target.process,
        thread=notification.pid,
        rank=target.rank,
        time_ns=found.time_ns or time.time_ns(),
    )


def _forget(thread: int, targets: Targets) -> None:
    """Forget a process that is about to run another program, and may have another rank then."""
    with suppress(OSError):
        targets.forget_process(targets.of(thread).process)


def _notifications(listener: Listener, *, idle: Callable[[], None]) -> Iterator[Notification]:
    """Yield each call that is stopped, until no process is left that could be; call `idle` where none was for some time."""
    import fcntl

    from seccompy import SeccompError
    from seccompy.notify import FdFlag

    with suppress(OSError):  # Linux 6.6 and newer: the thread goes on where the tracer runs, at once
        # The kernel takes the flags by value; seccompy 0.2 passes an address, which is refused.
        fcntl.ioctl(listener.fileno(), _SET_FLAGS, int(FdFlag.SYNC_WAKE_UP))
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    while True:
        found = poll.poll(_IDLE_MS)
        if not found:
            idle()
            found = poll.poll()
        ((_, events),) = found
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
