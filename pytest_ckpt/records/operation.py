"""One call by which a job changed its directory, as it was seen just before the kernel carried it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pytest_ckpt.records.codec import Record

#: `open` makes or empties a file; `arrive` moves in what lay elsewhere; `depart` moves out; `allocate` and `zero` make room
#: and wipe a range; `sync` makes a file or directory durable and `sync_all` everything; `unseen` can't be followed.
Kind: TypeAlias = Literal[
    "open",
    "write",
    "truncate",
    "allocate",
    "zero",
    "times",
    "mkdir",
    "rmdir",
    "unlink",
    "rename",
    "exchange",
    "link",
    "symlink",
    "arrive",
    "depart",
    "sync",
    "sync_all",
    "unseen",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Record):
    """One operation.

    Attributes:
        kind: what it does.
        call: the system call, such as `renameat2`.
        path: what it is done to, relative to the job's directory; empty for that directory; None for a file that has no name,
            or lies elsewhere.
        target: the second path of `rename`, `exchange` and `link`, or what a symbolic link says.
        inode: the kernel's number of the file that a descriptor stands for; 0 for a call by name.
        offset: where a file is changed, in bytes; None at its end.
        size: bytes changed, or the size to which a file is cut.
        data: where the bytes that are written begin in the log's file of bytes; None where there are none.
        says: the line of text that is all that is written, such as the name of the newest checkpoint.
        empties: whether opening a file empties it.
        exclusive: whether it fails where there is something at the (second) path.
        parts: what arrives, where that is a directory: files and directories below it, parents first.
        process: id of the process.
        thread: id of the thread; the operations of one are in order, those of several may overlap.
        rank: of a distributed job's process, as the environment that it was started with says; None where that says nothing.
        background: whether a thread or a process made it beside the first thread of the job's process, and of each rank's.
        time_ns: when it was seen, or let go on where it was held back, in nanoseconds since the epoch.
    """

    kind: Kind
    call: str = ""
    path: str | None = None
    target: str = ""
    inode: int = 0
    offset: int | None = None
    size: int = 0
    data: int | None = None
    says: str = ""
    empties: bool = False
    exclusive: bool = False
    parts: tuple[Operation, ...] = ()
    process: int = 0
    thread: int = 0
    rank: int | None = None
    background: bool = False
    time_ns: int = 0

    @property
    def changes(self) -> bool:
        """Whether it may change what the directory holds."""
        return self.kind not in {"sync", "sync_all", "unseen"}

    @property
    def text(self) -> str:
        """The operation in a line, such as `write model.safetensors, bytes 0 to 4096`."""
        where = "a file without a name" if self.path is None else self.path or "its directory"
        start = self.offset or 0
        return {
            "write": f"write {where}, bytes {start} to {start + self.size}",
            "rename": f"rename {where} to {self.target}",
            "link": f"link {where} to {self.target}",
            "arrive": f"move {self.target} from elsewhere to {where}",
            "open": f"open {where}, emptied" if self.empties else f"open {where}",
            "truncate": f"truncate {where} to {self.size} bytes",
            "sync_all": "sync everything",
        }.get(self.kind, f"{self.kind} {where}")
