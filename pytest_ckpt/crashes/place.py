"""The directory that is watched: which paths lie in it, and what comes into it from elsewhere."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterator


class Place:
    """A job's directory, and the file that keeps the bytes of all writes to it.

    Args:
        root: the directory; it has to be there.
        bytes_file: open for writing; what is kept is appended.
    """

    def __init__(self, root: Path, bytes_file: BinaryIO) -> None:
        self._root = os.path.realpath(root)
        self._below = self._root + "/"
        self._bytes = bytes_file
        self._kept = 0

    def holds(self, name: str) -> bool:
        """Say whether an absolute path, as /proc shows it, lies below the directory."""
        return name.startswith(self._below)

    def relative(self, path: str | None) -> str | None:
        """Return an absolute path as it is from the directory; empty for that itself, None for what lies elsewhere."""
        if path == self._root:
            return ""
        return path.removeprefix(self._below) if path is not None and self.holds(path) else None

    def resolve(self, path: str, *, follow: bool = False) -> str:
        """Return a path without links in the folders that lead to it, and with `follow` without one at its end."""
        folder, name = os.path.split(path.rstrip("/") or "/")
        if follow or name in {"", ".", ".."}:
            return os.path.realpath(path)
        return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118 - pathlib is slow here

    def keep(self, content: bytes) -> int:
        """Keep bytes that are written, and return where they begin in the file of bytes."""
        start = self._kept
        self._bytes.write(content)
        self._kept += len(content)
        return start

    # -- across the border ---------------------------------------------------------------------------------------------

    def moved(self, source: str, target: str) -> Operation | None:
        """Return what a rename does; None where nothing of ours is moved, or the kernel will refuse it."""
        old, new = self.relative(source), self.relative(target)
        if (old is None and new is None) or not _on_one_file_system(source, target):
            return None
        if old is not None and new is not None:
            return Operation(kind="rename", path=old, target=new)
        if new is None:
            return Operation(kind="depart", path=old)
        return self._arrival(source, new)

    def linked(self, source: str, target: str) -> Operation | None:
        """Return what a hard link does; `source` may be the way to a file without a name, below /proc."""
        new = self.relative(target)
        if new is None:
            return None
        old = self.relative(source)
        if source.startswith("/proc/"):
            with suppress(OSError):
                return Operation(kind="link", path=None, inode=os.stat(source).st_ino, target=new, exclusive=True)  # noqa: PTH116
            return None
        if old is not None:
            return Operation(kind="link", path=old, target=new, exclusive=True)
        return self._arrival(source, new) if _on_one_file_system(source, target) else None

    def _arrival(self, source: str, path: str) -> Operation | None:
        try:
            status = os.lstat(source)
            if stat.S_ISDIR(status.st_mode):
                parts = tuple(self._contents(source, path))
                return Operation(kind="arrive", path=path, target=source, parts=parts)
            return self._arriving(source, path, status)
        except OSError:  # there is nothing to be moved
            return None

    def _contents(self, source: str, path: str) -> Iterator[Operation]:
        for folder, folders, files in os.walk(source):
            here = path + folder.removeprefix(source)
            for name in sorted((*folders, *files)):
                status = os.lstat(f"{folder}/{name}")
                if stat.S_ISDIR(status.st_mode):
                    yield Operation(kind="mkdir", path=f"{here}/{name}")
                elif (found := self._arriving(f"{folder}/{name}", f"{here}/{name}", status)) is not None:
                    yield found

    def _arriving(self, source: str, path: str, status: os.stat_result) -> Operation | None:
        if stat.S_ISLNK(status.st_mode):
            return Operation(kind="symlink", path=path, target=os.readlink(source))  # noqa: PTH115 - these are no Paths
        content = Path(source).read_bytes()
        return Operation(
            kind="arrive",
            path=path,
            target=source,
            inode=status.st_ino,
            size=len(content),
            data=self.keep(content),
            time_ns=status.st_mtime_ns,
        )


def _on_one_file_system(source: str, target: str) -> bool:
    """Say whether something can be moved from one place to the other by name alone."""
    try:
        return os.lstat(source).st_dev == os.stat(os.path.dirname(target)).st_dev  # noqa: PTH116, PTH120 - these are no Paths
    except OSError:
        return False
