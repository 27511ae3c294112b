"""Seeing every call of a process, and of all that it starts, that changes a directory: before the kernel carries it out.

By seccomp user notification: the thread waits until the tracer has noted what it is about to do. It takes no privileges,
and whatever writes is seen, be it Python, C++, Rust or another program.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.calls import DECODERS
from pytest_ckpt.crashes.holding import Holding
from pytest_ckpt.crashes.log import LogWriter
from pytest_ckpt.crashes.notifying import notifications, respond
from pytest_ckpt.crashes.place import Place
from pytest_ckpt.crashes.seen import Seen
from pytest_ckpt.crashes.stopping import EXECS
from pytest_ckpt.crashes.target import Targets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from seccompy.notify import Listener, Notification

    from pytest_ckpt.records.operation import Operation

#: What the tracer meets where the kernel will refuse the call as well, or the thread has gone.
_REFUSED: Final = frozenset({errno.EBADF, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESRCH})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """What is to be traced.

    Attributes:
        root: the directory whose changes are noted.
        folder: where the log is written: `operations.jsonl` and `bytes`.
        answer: is told of each operation, with how many were noted before, and returns the number of the error with which it
            is to fail, or 0; None lets all go on.
        delay: seconds for which each operation is held back that a thread or process makes beside those that train, as on a slow
            disk; the others go on.
    """

    root: Path
    folder: Path
    answer: Callable[[int, Operation], int] | None = None
    delay: float = 0.0

    @property
    def operations(self) -> Path:
        """The file of the operations, a line each."""
        return self.folder / "operations.jsonl"

    @property
    def ending(self) -> Path:
        """A file that the job's process makes when it has done all, and waited for what it waits for."""
        return self.folder / "ending"

    @property
    def abandoned(self) -> Path:
        """The file of the operations that were held back when their process ended; not there where none were."""
        return self.folder / "abandoned.jsonl"

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
                job, fds, _, _ = socket.recv_fds(self._channel, 32, 1)
            if not fds:
                self.error = "the job's process ended before it could be traced"
                return
            with Listener(fds[0]) as listener:
                self._listen(listener, int(job))
        except Exception as error:  # noqa: BLE001 - nobody else sees what a thread raises
            self.error = self.error or f"the tracer failed: {error!r}"

    def _listen(self, listener: Listener, job: int) -> None:
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
            targets = files.enter_context(closing(Targets(job)))
            glance = Place(self._tracing.root, files.enter_context(open(os.devnull, "wb")))  # noqa: PTH123 - no file of ours

            def in_background(seen: Notification) -> Operation | None:
                found = None if seen.nr in execs else self._decoded(seen, *decoders[seen.nr], glance, targets)
                return found if found is not None and found.background else None

            holding = Holding(self._tracing.delay, in_background, self._tracing.ending.exists)
            for notification in notifications(listener, holding, idle=log.flush):
                log.seen(notification.pid)
                if notification.nr in execs:
                    _forget(notification.pid, targets)
                    respond(listener, notification.id, 0)
                    continue
                found = self._decoded(notification, *decoders[notification.nr], place, targets)
                respond(listener, notification.id, 0 if found is None else self._noted(found, notification.nr, log))

            if holding.abandoned:
                lines = (json.dumps(operation.to_json()) + "\n" for operation in holding.abandoned)
                self._tracing.abandoned.write_text("".join(lines), encoding="utf-8")

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
        background=targets.is_background(target),
        time_ns=found.time_ns or time.time_ns(),
    )


def _forget(thread: int, targets: Targets) -> None:
    """Forget a process that is about to run another program, and may have another rank then."""
    with suppress(OSError):
        targets.forget_process(targets.of(thread).process)
