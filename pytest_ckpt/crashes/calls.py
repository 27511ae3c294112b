"""The system calls that change files: which of them are looked at, and what each is about to do."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.target import AT_FDCWD
from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_ckpt.crashes.place import Place
    from pytest_ckpt.crashes.target import Descriptor, Target
    from pytest_ckpt.records.operation import Kind

# linux/fcntl.h, linux/fs.h, linux/falloc.h, bits/mman.h
_AT_REMOVEDIR: Final = 0x200
_AT_SYMLINK_FOLLOW: Final = 0x400
_AT_EMPTY_PATH: Final = 0x1000
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_FALLOC_KEEP_SIZE: Final = 1
_FALLOC_PUNCH_HOLE: Final = 2
_FALLOC_ZERO_RANGE: Final = 16
_RWF_APPEND: Final = 0x10
_UTIME_OMIT: Final = (1 << 30) - 2
_NOW: Final = (1 << 30) - 1


@dataclass(frozen=True, slots=True)
class Seen:
    """A call in which a thread waits.

    Attributes:
        args: its arguments as the kernel has them, without signs.
        place: the directory that is watched, and where the bytes of writes are kept.
    """

    target: Target
    args: Sequence[int]
    place: Place

    def number(self, position: int) -> int:
        """Return an argument that may be negative."""
        return ctypes.c_int(self.args[position] & 0xFFFFFFFF).value

    def long(self, position: int) -> int:
        """Return an argument that is an offset."""
        return ctypes.c_int64(self.args[position]).value

    def path(self, dirfd: int, text: int, *, follow: bool = False) -> str:
        """Return the absolute path that a call names; with `dirfd` below 0 as an argument's place it is the current directory."""
        base = AT_FDCWD if dirfd < 0 else self.number(dirfd)
        return self.place.resolve(self.target.absolute(base, self.target.text(self.args[text])), follow=follow)

    def pointed(self, position: int) -> int | None:
        """Return the offset to which an argument points; None where it is no pointer."""
        if not self.args[position]:
            return None
        return int.from_bytes(self.target.memory(self.args[position], 8), "little", signed=True)


def _on_file(seen: Seen, position: int = 0) -> tuple[Descriptor, str | None] | None:
    """Return the regular file that a descriptor stands for and its path, if it is ours."""
    if not seen.place.holds(seen.target.link_of(seen.number(position))):
        return None
    found = seen.target.descriptor(seen.number(position))
    return (found, seen.place.relative(found.path)) if found.is_file else None


# -- what goes into files --------------------------------------------------------------------------------------------------


def _written(seen: Seen, data: Callable[[], bytes], offset: int | None, position: int = 0) -> Operation | None:
    file = _on_file(seen, position)
    if file is None:
        return None
    content = data()
    if not content:
        return None
    at = seen.target.position(seen.number(position)) if offset is None else offset
    return Operation(
        kind="write",
        path=file[1],
        inode=file[0].inode,
        offset=None if at is None or at < 0 else at,
        size=len(content),
        data=seen.place.keep(content),
    )


def _write(seen: Seen) -> Operation | None:
    return _written(seen, lambda: seen.target.memory(seen.args[1], seen.args[2]), None)


def _pwrite(seen: Seen) -> Operation | None:
    return _written(seen, lambda: seen.target.memory(seen.args[1], seen.args[2]), seen.long(3))


def _writev(seen: Seen) -> Operation | None:
    return _written(seen, lambda: seen.target.vectors(seen.args[1], seen.args[2]), None)


def _pwritev(seen: Seen) -> Operation | None:
    return _written(seen, lambda: seen.target.vectors(seen.args[1], seen.args[2]), seen.long(3))


def _pwritev2(seen: Seen) -> Operation | None:
    offset = None if seen.long(3) == -1 else seen.long(3)
    found = _written(seen, lambda: seen.target.vectors(seen.args[1], seen.args[2]), offset)
    return replace(found, offset=None) if found is not None and seen.args[5] & _RWF_APPEND else found


def _sendfile(seen: Seen) -> Operation | None:
    def data() -> bytes:
        return seen.target.read_file(seen.number(1), seen.pointed(2), seen.args[3])

    return _written(seen, data, None)


def _copy_file_range(seen: Seen) -> Operation | None:
    def data() -> bytes:
        return seen.target.read_file(seen.number(0), seen.pointed(1), seen.args[4])

    return _written(seen, data, seen.pointed(3), 2)


def _splice(seen: Seen) -> Operation | None:
    return _unfollowed(seen, 2)


def _mmap(seen: Seen) -> Operation | None:
    return _unfollowed(seen, 4)


def _io_uring(seen: Seen) -> Operation | None:
    del seen
    return Operation(kind="unseen")


def _unfollowed(seen: Seen, position: int) -> Operation | None:
    file = _on_file(seen, position)
    return None if file is None else Operation(kind="unseen", path=file[1], inode=file[0].inode)


def _ftruncate(seen: Seen) -> Operation | None:
    file = _on_file(seen)
    if file is None:
        return None
    return Operation(kind="truncate", path=file[1], inode=file[0].inode, size=seen.long(1))


def _truncate(seen: Seen) -> Operation | None:
    path = seen.place.relative(seen.path(-1, 0, follow=True))
    return None if path is None else Operation(kind="truncate", path=path, size=seen.long(1))


def _fallocate(seen: Seen) -> Operation | None:
    file = _on_file(seen)
    mode = seen.number(1)
    if file is None or mode == _FALLOC_KEEP_SIZE:
        return None
    found = Operation(kind="allocate", path=file[1], inode=file[0].inode, offset=seen.long(2), size=seen.long(3))
    if mode == 0:
        return found
    if mode in {_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, _FALLOC_ZERO_RANGE, _FALLOC_ZERO_RANGE | _FALLOC_KEEP_SIZE}:
        return replace(found, kind="zero", exclusive=bool(mode & _FALLOC_KEEP_SIZE))
    return replace(found, kind="unseen")


# -- what files there are --------------------------------------------------------------------------------------------------


def _opened(seen: Seen, dirfd: int, text: int, flags: int) -> Operation | None:
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        return None  # it has no name until a link is made to it, and its writes are told by its number
    exclusive = bool(flags & os.O_EXCL and flags & os.O_CREAT)
    path = seen.place.relative(seen.path(dirfd, text, follow=not exclusive and not flags & os.O_NOFOLLOW))
    empties = bool(flags & os.O_TRUNC and flags & os.O_ACCMODE != os.O_RDONLY)
    if path is None or not (flags & os.O_CREAT or empties):
        return None
    if not flags & os.O_CREAT:
        return Operation(kind="truncate", path=path)
    return Operation(kind="open", path=path, empties=empties, exclusive=exclusive)


def _open(seen: Seen) -> Operation | None:
    return _opened(seen, -1, 0, seen.number(1))


def _openat(seen: Seen) -> Operation | None:
    return _opened(seen, 0, 1, seen.number(2))


def _openat2(seen: Seen) -> Operation | None:
    (flags,) = struct.unpack("=Q", seen.target.memory(seen.args[2], 8))
    return _opened(seen, 0, 1, flags)


def _creat(seen: Seen) -> Operation | None:
    return _opened(seen, -1, 0, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)


def _mknod(seen: Seen) -> Operation | None:
    return _opened(seen, -1, 0, os.O_CREAT | os.O_EXCL)


def _mknodat(seen: Seen) -> Operation | None:
    return _opened(seen, 0, 1, os.O_CREAT | os.O_EXCL)


def _named(kind: Kind, seen: Seen, dirfd: int, text: int) -> Operation | None:
    path = seen.place.relative(seen.path(dirfd, text))
    return None if path is None else Operation(kind=kind, path=path)


def _mkdir(seen: Seen) -> Operation | None:
    return _named("mkdir", seen, -1, 0)


def _mkdirat(seen: Seen) -> Operation | None:
    return _named("mkdir", seen, 0, 1)


def _rmdir(seen: Seen) -> Operation | None:
    return _named("rmdir", seen, -1, 0)


def _unlink(seen: Seen) -> Operation | None:
    return _named("unlink", seen, -1, 0)


def _unlinkat(seen: Seen) -> Operation | None:
    return _named("rmdir" if seen.args[2] & _AT_REMOVEDIR else "unlink", seen, 0, 1)


def _symlink(seen: Seen) -> Operation | None:
    found = _named("symlink", seen, -1, 1)
    return None if found is None else replace(found, target=seen.target.text(seen.args[0]))


def _symlinkat(seen: Seen) -> Operation | None:
    found = _named("symlink", seen, 1, 2)
    return None if found is None else replace(found, target=seen.target.text(seen.args[0]))


def _rename(seen: Seen) -> Operation | None:
    return seen.place.moved(seen.path(-1, 0), seen.path(-1, 1))


def _renameat(seen: Seen) -> Operation | None:
    return seen.place.moved(seen.path(0, 1), seen.path(2, 3))


def _renameat2(seen: Seen) -> Operation | None:
    flags = seen.number(4)
    found = _renameat(seen)
    if found is None or not flags:
        return found
    if flags == _RENAME_NOREPLACE:
        return replace(found, exclusive=True)
    exchanged = flags == _RENAME_EXCHANGE and found.kind == "rename"
    return replace(found, kind="exchange" if exchanged else "unseen")


def _link(seen: Seen) -> Operation | None:
    return seen.place.linked(seen.path(-1, 0), seen.path(-1, 1))


def _linkat(seen: Seen) -> Operation | None:
    flags = seen.number(4)
    if flags & _AT_EMPTY_PATH and not seen.target.text(seen.args[1]):
        source = f"/proc/{seen.target.thread}/fd/{seen.number(0)}"
    else:
        source = seen.target.absolute(seen.number(0), seen.target.text(seen.args[1]))
    if source.startswith("/proc/"):  # the way to give a file a name that has none
        return seen.place.linked(source, seen.path(2, 3))
    return seen.place.linked(seen.place.resolve(source, follow=bool(flags & _AT_SYMLINK_FOLLOW)), seen.path(2, 3))


def _utimensat(seen: Seen) -> Operation | None:
    if not seen.args[1]:
        file = _on_file(seen)
        found = None if file is None else Operation(kind="times", path=file[1], inode=file[0].inode)
    else:
        path = seen.place.relative(seen.path(0, 1, follow=True))
        found = None if path is None else Operation(kind="times", path=path)
    if found is None or not seen.args[2]:
        return found
    seconds, nanoseconds = struct.unpack("=qq", seen.target.memory(seen.args[2] + 16, 16))
    if nanoseconds == _UTIME_OMIT:
        return None
    return found if nanoseconds == _NOW else replace(found, size=seconds * 10**9 + nanoseconds)


# -- what makes them last --------------------------------------------------------------------------------------------------


def _fsync(seen: Seen) -> Operation | None:
    name = seen.target.link_of(seen.number(0))
    if not name.startswith("/"):
        return None
    found = seen.target.descriptor(seen.number(0))
    path = seen.place.relative(found.path)
    return Operation(kind="sync", path=path, inode=found.inode)


def _sync(seen: Seen) -> Operation | None:
    del seen
    return Operation(kind="sync_all", path="")


#: What each call is about to do; None where that is nothing to the directory.
DECODERS: Final[dict[str, Callable[[Seen], Operation | None]]] = {
    "open": _open,
    "openat": _openat,
    "openat2": _openat2,
    "creat": _creat,
    "mknod": _mknod,
    "mknodat": _mknodat,
    "write": _write,
    "pwrite64": _pwrite,
    "writev": _writev,
    "pwritev": _pwritev,
    "pwritev2": _pwritev2,
    "sendfile": _sendfile,
    "copy_file_range": _copy_file_range,
    "splice": _splice,
    "mmap": _mmap,
    "io_uring_setup": _io_uring,
    "ftruncate": _ftruncate,
    "truncate": _truncate,
    "fallocate": _fallocate,
    "rename": _rename,
    "renameat": _renameat,
    "renameat2": _renameat2,
    "link": _link,
    "linkat": _linkat,
    "symlink": _symlink,
    "symlinkat": _symlinkat,
    "unlink": _unlink,
    "unlinkat": _unlinkat,
    "rmdir": _rmdir,
    "mkdir": _mkdir,
    "mkdirat": _mkdirat,
    "utimensat": _utimensat,
    "fsync": _fsync,
    "fdatasync": _fsync,
    "syncfs": _sync,
    "sync": _sync,
}
