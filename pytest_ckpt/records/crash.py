"""The states in which a crash can leave a job's directory."""

from __future__ import annotations

from dataclasses import dataclass, field

from pytest_ckpt.records.codec import Record
from pytest_ckpt.records.operation import Operation
from pytest_ckpt.records.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashState(Record):
    """What lies in the directory if the job is killed, or the power fails, at one moment; no two of a run are equal.

    Attributes:
        operations: how many of the run's operations had begun when it was first there.
        until: how many had begun when it was last there.
        entered: how many had begun when that time began: the last of them made it, others up to `until` changed nothing.
        cut: how many bytes of the last one's write had arrived; None if all.
        undone: which of the earlier operations, each the last of its thread, had not been carried out yet.
        lost: what a power failure has lost beside that, such as `the bytes of model.safetensors`; empty for a kill.
        tree: what is there.
    """

    operations: int
    until: int = 0
    entered: int = 0
    cut: int | None = None
    undone: tuple[int, ...] = ()
    lost: str = ""
    tree: Tree = field(default_factory=Tree)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace(Record):
    """What was seen of the system calls of a run.

    Attributes:
        operations: that changed the directory, or made it durable, in the order in which they began.
        states: in which a kill could have left the directory, in their order, the first being what the run started from; and
            after them those that a power failure alone could have left.
        refused: operations that were answered with an error, as the experiment asks, and are not among the others; or the one
            at which a signal was sent.
        abandoned: operations that were held back, as the experiment asks, when their process ended, and were never done.
        left: what lies in the directory in the end.
        unsupported: why no system call could be seen here; empty where they were.
        doubt: why what was seen can't be all; empty where it is.
    """

    operations: tuple[Operation, ...] = ()
    states: tuple[CrashState, ...] = ()
    refused: tuple[Operation, ...] = ()
    abandoned: tuple[Operation, ...] = ()
    left: Tree = field(default_factory=Tree)
    unsupported: str = ""
    doubt: str = ""
