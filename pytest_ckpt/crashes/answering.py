"""How the calls of a job are answered in an experiment: from one of them on as a full disk does, or once as a bad one."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from pytest_ckpt.records.fault import Fault
    from pytest_ckpt.records.strike import Strike

#: What takes blocks; that a file is made, or gets another name, mostly does not.
_TAKES_BLOCKS: Final = frozenset({"write", "allocate", "mkdir"})
#: What makes a name; a disk on which that fails can take no data either.
_MAKES_NAMES: Final = frozenset({"open", "mkdir", "symlink", "link", "rename", "arrive"})


@dataclass(slots=True)
class Answer:
    """Answers the operations of one run, in its supervisor's process, and notes which it has refused.

    Attributes:
        fault: what is to happen.
        root: the directory that is watched.
        noted: the file of those that were refused, a line each.
    """

    fault: Fault
    root: Path
    noted: Path
    _failing: frozenset[str] = field(default=frozenset())

    def __call__(self, number: int, operation: Operation) -> int:
        """Return the number of the error with which an operation fails, or 0; `number` others were let on before."""
        if not self._failing:
            if number < self.fault.operation or operation.kind != self.fault.kind:
                return 0
            self._failing = _fail_with(self.fault)
        elif not self.fault.lasts or operation.kind not in self._failing or self._is_there(operation):
            return 0
        with self.noted.open("a", encoding="utf-8") as file:
            file.write(json.dumps(operation.to_json()) + "\n")
        return int(getattr(errno, self.fault.error))

    def _is_there(self, operation: Operation) -> bool:
        """Say whether a file or folder has its name already, so that none is made."""
        return operation.kind in {"open", "mkdir"} and os.path.lexists(self.root / (operation.path or ""))


def _fail_with(fault: Fault) -> frozenset[str]:
    """Return which kinds of operations fail once the first has."""
    return _TAKES_BLOCKS | _MAKES_NAMES if fault.kind in _MAKES_NAMES else _TAKES_BLOCKS


@dataclass(slots=True)
class Signalling:
    """Sends a job a signal as a process comes to one operation, and kills it after the time of grace; all go on.

    Attributes:
        strike: what is to happen.
        noted: the file of the operation at which it was sent.
        with_others: returns the processes that train with one, itself included: a scheduler means all of them.
    """

    strike: Strike
    noted: Path
    with_others: Callable[[int], Iterable[int]]
    _sent: bool = False

    def __call__(self, number: int, operation: Operation) -> int:
        """Send the signal if this is the operation; `number` others were let on before."""
        if not self._sent and number >= self.strike.operation and operation.kind == self.strike.kind:
            self._sent = True
            self.noted.write_text(json.dumps(operation.to_json()) + "\n", encoding="utf-8")
            strike(self.with_others(operation.process), self.strike)
        return 0


def strike(targets: Iterable[int], how: Strike) -> None:
    """Send processes a signal, and kill those after the time of grace that are still there then, if this one is."""
    targets = tuple(targets)
    for process in targets:
        _kill_after(process, how.grace)
    for process in targets:
        with suppress(ProcessLookupError):
            os.kill(process, getattr(signal, how.signal))


def _kill_after(process: int, seconds: float) -> None:
    timer = threading.Timer(seconds, _kill, (process,))
    timer.daemon = True
    timer.start()


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.kill(process, signal.SIGKILL)


def noted_in(noted: Path) -> tuple[Operation, ...]:
    """Read which operations were refused, or abandoned, or at which a signal was sent."""
    lines = noted.read_text(encoding="utf-8").splitlines() if noted.exists() else []
    return tuple(Operation.from_json(json.loads(line)) for line in lines)
