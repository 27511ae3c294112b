"""The log of a traced run: the operations in the order in which they were seen, and the bytes of the writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from pathlib import Path


class LogWriter:
    """Writes a log, a line each for an operation and for what is known of when it was done."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._pending: dict[int, int] = {}
        self.count = 0

    def seen(self, thread: int) -> None:
        """Note that a thread makes another call: the one before has been carried out."""
        number = self._pending.pop(thread, None)
        if number is not None and number != self.count - 1:
            self._write({"done": number})

    def add(self, operation: Operation) -> None:
        """Note what a thread is about to do."""
        self._write(operation.to_json())
        self._pending[operation.thread] = self.count
        self.count += 1

    def _write(self, line: object) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


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
        return cls(operations=tuple(operations), done=known, content=content)

    def data(self, offset: int, size: int) -> bytes:
        """Return bytes that were written."""
        with self.content.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def may_be_late(self, number: int) -> bool:
        """Say whether others were seen to begin before an operation was certainly done."""
        return self.done[number] > number + 1
