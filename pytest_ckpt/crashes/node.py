"""What lies under a name of the file system in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from pytest_ckpt.records.tree import Entry


@dataclass(slots=True, eq=False)
class Node:
    """A file, directory or link, under whatever names.

    Attributes:
        content: a file's bytes.
        target: what a link says.
        mtime_ns: when it was last changed.
        names: how many there are.
    """

    kind: Literal["file", "dir", "link"]
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    mtime_ns: int = 0
    names: int = 0
    _digest: str = ""

    def change(self, content: bytes, at: int) -> None:
        """Give it another content."""
        self.content, self.mtime_ns, self._digest = content, at, ""

    @property
    def digest(self) -> str:
        """The digest under which the evidence store has its bytes."""
        self._digest = self._digest or hashlib.blake2b(self.content, digest_size=16).hexdigest()
        return self._digest


def padded(content: bytes, size: int) -> bytes:
    """Return bytes with zeros after them, so that they are at least so many."""
    return content + bytes(max(0, size - len(content)))


def entry_of(path: str, node: Node) -> Entry:
    """Return the entry of a tree that stands for what lies at a path."""
    content = node.digest if node.kind == "file" else node.target
    size = len(node.content)
    return Entry(path=path, kind=node.kind, mode=node.mode, mtime_ns=node.mtime_ns, size=size, content=content)
