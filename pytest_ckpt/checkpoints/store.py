"""The evidence store keeps every file content once, read-only, so that a directory can be rebuilt as it was at any look."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Literal

from pytest_ckpt.errors import HarnessError
from pytest_ckpt.records.tree import Entry, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20


class EvidenceStore:
    """A content-addressed folder of files; never linked to a job's own files, which may be changed in place."""

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects"
        self._objects.mkdir(parents=True, exist_ok=True)
        self._seen: dict[tuple[str, int, int, int], str] = {}

    def capture(self, root: Path) -> Tree:
        """Copy what is new below `root` into the store and return the tree.

        Files that vanish while being read are left out: they were not there at this look.
        """
        return Tree(entries=tuple(entry for path in walk(root) if (entry := self._entry(root, path)) is not None))

    @staticmethod
    def is_as_in(tree: Tree, root: Path) -> bool:
        """Say whether what is below `root` is as it was at a look, by names, sizes and times alone."""
        known = {entry.path: (entry.size, entry.mtime_ns) if entry.kind == "file" else None for entry in tree.entries}
        now: dict[str, tuple[int, int] | None] = {}
        for path in walk(root):
            with suppress(FileNotFoundError):
                status = os.lstat(root / path)
                if (kind := _kind(status.st_mode)) is not None:
                    now[path] = (status.st_size, status.st_mtime_ns) if kind == "file" else None
        return now == known

    def _entry(self, root: Path, path: str) -> Entry | None:
        try:
            status = os.lstat(root / path)
            kind = _kind(status.st_mode)
            if kind is None:
                return None
            content, size = self._content(root / path, kind, status)
        except FileNotFoundError:
            return None
        mode = stat.S_IMODE(status.st_mode)
        return Entry(path=path, kind=kind, mode=mode, mtime_ns=status.st_mtime_ns, size=size, content=content)

    def _content(self, path: Path, kind: str, status: os.stat_result) -> tuple[str, int]:
        if kind == "dir":
            return "", 0
        if kind == "link":
            return str(path.readlink()), 0
        key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in self._seen:
            self._seen[key] = self._keep(path)
        digest = self._seen[key]
        return digest, self.path_of(digest).stat().st_size

    def _keep(self, path: Path) -> str:
        """Copy one file into the store under the digest of its bytes, unless a small one is there already."""
        with path.open("rb") as source:
            chunk = source.read(_CHUNK)
            digest = hashlib.blake2b(chunk, digest_size=16)
            if len(chunk) == _CHUNK or not self.path_of(digest.hexdigest()).exists():
                self._copy(chunk, source, digest)
        return digest.hexdigest()

    def _copy(self, chunk: bytes, source: BinaryIO, digest: hashlib.blake2b) -> None:
        """Write what has been read of a file and all that follows."""
        temporary = self._objects / f"incoming-{os.getpid()}-{threading.get_ident()}"
        with temporary.open("wb") as target:
            target.write(chunk)
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        temporary.chmod(0o400)
        temporary.replace(self.path_of(digest.hexdigest()))

    def keep(self, content: bytes) -> str:
        """Keep bytes as the content of a file, and return their digest."""
        digest = hashlib.blake2b(content, digest_size=16)
        if not self.path_of(digest.hexdigest()).exists():
            self._copy(content, io.BytesIO(), digest)
        return digest.hexdigest()

    def path_of(self, digest: str) -> Path:
        """Return where the content of that digest lies; it must not be changed."""
        return self._objects / digest

    def verify(self, digest: str) -> None:
        """Check that the stored content still has its digest.

        Raises:
            HarnessError: it has not, so nothing that was concluded from it can be trusted.
        """
        found = hashlib.blake2b(digest_size=16)
        with self.path_of(digest).open("rb") as source:
            while chunk := source.read(_CHUNK):
                found.update(chunk)
        if found.hexdigest() != digest:
            message = (
                f"evidence was changed: {self.path_of(digest)} should have digest {digest} and has {found.hexdigest()}. "
                "Something wrote into the evidence store below the base temp directory; run the test again."
            )
            raise HarnessError(message)

    def materialise(self, tree: Tree, root: Path) -> None:
        """Make the directory `root` hold exactly `tree`, times and links included."""
        empty(root)
        for entry in tree.entries:
            self._write(entry, root / entry.path)
        for entry in reversed(tree.entries):
            if entry.kind == "dir":
                (root / entry.path).chmod(entry.mode)
            if entry.kind != "link":
                os.utime(root / entry.path, ns=(entry.mtime_ns, entry.mtime_ns))

    def _write(self, entry: Entry, path: Path) -> None:
        if entry.kind == "dir":
            path.mkdir()
        elif entry.kind == "link":
            path.symlink_to(entry.content)
        else:
            self.verify(entry.content)
            shutil.copyfile(self.path_of(entry.content), path)
            path.chmod(entry.mode)


def walk(root: Path) -> Iterator[str]:
    """Yield every path below `root`, relative, parents before children, sorted; links are not followed."""
    yield from _walk(str(root), "")


def _walk(root: str, prefix: str) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, prefix)) as found:  # noqa: PTH118 - called at every step of a job
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, is_dir in names:
        path = prefix + name
        yield path
        if is_dir:
            yield from _walk(root, path + "/")


def signature(root: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return what a cheap look sees: path, inode, size and time of everything below `root`."""
    seen = []
    for path in walk(root):
        try:
            status = os.lstat(root / path)
        except FileNotFoundError:
            continue
        size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
        time = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
        seen.append((path, status.st_ino, size, time))
    return tuple(seen)


def empty(root: Path) -> None:
    """Remove everything below `root` and keep `root` itself, which other processes may stand in."""
    root.mkdir(parents=True, exist_ok=True)
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            _make_writable(path)
            shutil.rmtree(path)
        else:
            path.unlink()


def _make_writable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IRWXU)


def _kind(mode: int) -> Literal["file", "dir", "link"] | None:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "link" if stat.S_ISLNK(mode) else None
