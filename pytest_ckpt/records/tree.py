"""A directory's content as data: names, kinds, times and the digests under which the evidence store keeps the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pytest_ckpt.records.codec import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Record):
    """One name in a directory tree.

    Attributes:
        path: relative to the tree's root, with forward slashes.
        kind: file, directory or symbolic link.
        mode: permission bits.
        mtime_ns: modification time in nanoseconds; frameworks rotate by it.
        size: bytes of a file.
        content: digest of a file's bytes, or a link's target.
    """

    path: str
    kind: Literal["file", "dir", "link"]
    mode: int = 0
    mtime_ns: int = 0
    size: int = 0
    content: str = ""

    def same_as(self, other: Entry) -> bool:
        """Say whether both name the same thing, not looking at times."""
        return (self.path, self.kind, self.content) == (other.path, other.kind, other.content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree(Record):
    """All entries below a root, parents before children, sorted by path."""

    entries: tuple[Entry, ...] = ()

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def get(self, path: str) -> Entry | None:
        """Return the entry at `path`, or None."""
        return next((entry for entry in self.entries if entry.path == path), None)

    def under(self, path: str) -> tuple[Entry, ...]:
        """Return the entry at `path` and all entries below it."""
        return tuple(entry for entry in self.entries if entry.path == path or entry.path.startswith(path + "/"))

    def files_under(self, path: str) -> tuple[Entry, ...]:
        """Return the files at or below `path`."""
        return tuple(entry for entry in self.under(path) if entry.kind == "file")

    def children(self, path: str) -> tuple[Entry, ...]:
        """Return the entries directly in the directory `path` (`.` is the root)."""
        return tuple(entry for entry in self.entries if str(PurePosixPath(entry.path).parent) == path)

    def changed_since(self, earlier: Tree) -> tuple[str, ...]:
        """Return the paths of files and links that are new or have other content than in `earlier`."""
        before = {entry.path: entry for entry in earlier.entries}
        return tuple(
            entry.path
            for entry in self.entries
            if entry.kind != "dir" and (entry.path not in before or not entry.same_as(before[entry.path]))
        )

    def gone_since(self, earlier: Tree) -> tuple[str, ...]:
        """Return the paths that `earlier` has and this tree has not."""
        now = {entry.path for entry in self.entries}
        return tuple(entry.path for entry in earlier.entries if entry.path not in now)

    def with_subtree(self, path: str, other: Tree) -> Tree:
        """Return this tree with everything at or below `path` taken from `other`."""
        kept = [entry for entry in self.entries if entry not in self.under(path)]
        return Tree(entries=tuple(sorted((*kept, *other.under(path)), key=lambda entry: entry.path)))
