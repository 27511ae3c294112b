"""Seeing every call of a process, and of all that it starts, that changes a directory: before the kernel carries it out.

By seccomp user notification: the thread waits until the tracer has noted what it is about to do. It takes no privileges,
and whatever writes is seen, be it Python, C++, Rust or another program.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.crashes import ending_in, rank_in
from pytest_ckpt.crashes.decoding import Decoding
from pytest_ckpt.crashes.holding import Holding
from pytest_ckpt.crashes.log import LogWriter
from pytest_ckpt.crashes.notifying import notifications, respond
from pytest_ckpt.crashes.place import Place
from pytest_ckpt.crashes.target import Targets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from seccompy.notify import Listener, Notification

    from pytest_ckpt.records.operation import Operation


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
    def abandoned(self) -> Path:
        """The file of the operations that were held back when their process ended; not there where none were."""
        return self.folder / "abandoned.jsonl"

    def rank_of(self, process: int) -> int | None:
        """Return the rank that a process has said to be, as one does that the job forks to train with others."""
        with suppress(OSError, ValueError):  # not there, or just being written
            return int(rank_in(self.folder, process).read_text(encoding="ascii"))
        return None

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
        with ExitStack() as files:
            log = LogWriter(files.enter_context(self._tracing.operations.open("w", encoding="utf-8")))
            files.callback(log.flush)
            place = Place(self._tracing.root, files.enter_context(self._tracing.bytes.open("wb")))
            glance = Place(self._tracing.root, files.enter_context(open(os.devnull, "wb")))  # noqa: PTH123 - no file of ours
            decoding = Decoding(files.enter_context(closing(Targets(job, self._tracing.rank_of))))

            def in_background(call: Notification) -> Operation | None:
                found = None if decoding.is_exec(call) else decoding.operation(call, glance)
                return found if found is not None and found.background else None

            holding = Holding(self._tracing.delay, in_background, ending_in(self._tracing.folder).exists)
            for call in notifications(listener, holding, idle=log.flush):
                log.seen(call.pid)
                if decoding.is_exec(call):
                    decoding.forget(call.pid)
                    respond(listener, call.id, 0)
                    continue
                found = decoding.operation(call, place)
                self.error = self.error or decoding.error
                respond(listener, call.id, 0 if found is None else self._noted(found, call.nr, log))

            if holding.abandoned:
                lines = (json.dumps(operation.to_json()) + "\n" for operation in holding.abandoned)
                self._tracing.abandoned.write_text("".join(lines), encoding="utf-8")

    def _noted(self, operation: Operation, call: int, log: LogWriter) -> int:
        """Note an operation, unless it is refused; return the error with which it is answered, or 0."""
        refused = 0 if self._tracing.answer is None else self._tracing.answer(log.count, operation)
        if not refused:
            log.add(operation, call)
        return refused
