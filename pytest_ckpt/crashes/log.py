"""The log of a traced run: the operations in the order in which they were seen, and the bytes of the writes."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, TextIO

from pytest_ckpt.crashes.target import has_left
from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from pathlib import Path


#: Bytes of a line that may name a checkpoint.
_LINE: Final = 1024

#: Seconds after which an operation is taken for done, even if its thread was not seen anywhere else: local writes take less.
_LONGEST: Final = 0.005


class _Pending(NamedTuple):
    """An operation after which its thread was not seen again.

    Attributes:
        number: of the operation.
        call: the number of its system call.
        since: when it began, by the monotonic clock.
    """

    number: int
    call: int
    since: float

    def is_over(self, thread: int, *, waits: bool) -> bool:
        """Say whether it has been carried out, as far as can be seen.

        Args:
            waits: whether to give it some time, as what a new process does comes after what made its parent start it.
        """
        until = self.since + _LONGEST
        while not (over := has_left(thread, self.call)) and waits and time.monotonic() < until:
            time.sleep(_LONGEST / 20)
        return over or time.monotonic() > until


class LogWriter:
    """Writes a log, a line each for an operation and for what is known of when it was done.

    Lines are kept until `flush`, as a thread waits while they are added.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._unwritten: list[Operation | int] = []
        self._pending: dict[int, _Pending] = {}
        self._processes: set[int] = set()
        self.count = 0

    def seen(self, thread: int) -> None:
        """Note that a thread makes another call: the one before has been carried out."""
        found = self._pending.pop(thread, None)
        if found is not None:
            self._unwritten.append(found.number)

    def add(self, operation: Operation, call: int) -> None:
        """Note what a thread is about to do.

        Args:
            call: the number of the system call.
        """
        is_new = operation.process not in self._processes
        self._processes.add(operation.process)
        for thread in [other for other, found in self._pending.items() if found.is_over(other, waits=is_new)]:
            self._unwritten.append(self._pending.pop(thread).number)
        self._unwritten.append(operation)
        self._pending[operation.thread] = _Pending(self.count, call, time.monotonic())
        self.count += 1

    def flush(self) -> None:
        """Write what is kept."""
        for one in self._unwritten:
            line = {"done": one} if isinstance(one, int) else one.to_json()
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._unwritten.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log as it was written.

    Attributes:
        operations: in the order in which they were seen.
        done: for each how many operations had been seen when it was certainly done; at least one more than its number.
        content: the file of the bytes.
    """

    operations: tuple[Operation, ...]
    done: tuple[int, ...]
    content: Path

    @classmethod
    def read(cls, lines: Path, content: Path) -> Log:
        """Read the log of a run that has ended."""
        operations: list[Operation] = []
        done: dict[int, int] = {}
        last: dict[int, int] = {}
        for line in lines.read_text(encoding="utf-8").splitlines():
            data = json.loads(line)
            if "done" in data:
                done[data["done"]] = len(operations)
                continue
            operation = Operation.from_json(data)
            before = last.get(operation.thread)
            if before is not None:
                done.setdefault(before, len(operations))
            last[operation.thread] = len(operations)
            operations.append(operation)
        known = tuple(done.get(number, len(operations)) for number in range(len(operations)))
        with content.open("rb") as file:
            return cls(
                operations=tuple(_read(operation, file) for operation in operations), done=known, content=content
            )

    def data(self, offset: int, size: int) -> bytes:
        """Return bytes that were written."""
        with self.content.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def may_be_late(self, number: int) -> bool:
        """Say whether others were seen to begin before an operation was certainly done."""
        return self.done[number] > number + 1


def _read(operation: Operation, content: BinaryIO) -> Operation:
    """Return an operation with the line that it writes, where that is all."""
    if operation.data is None or operation.offset or operation.size > _LINE:
        return operation
    content.seek(operation.data)
    try:
        text = content.read(operation.size).decode().strip()
    except UnicodeDecodeError:
        return operation
    return replace(operation, says=text) if text.isprintable() else operation
