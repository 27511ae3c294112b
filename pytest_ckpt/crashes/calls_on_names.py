"""The system calls that make files, directories and links, give them other names, remove them and set their times."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.seen import Seen, on_file
from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.records.operation import Kind

# linux/fcntl.h, linux/fs.h, linux/stat.h
_AT_REMOVEDIR: Final = 0x200
_AT_SYMLINK_FOLLOW: Final = 0x400
_AT_EMPTY_PATH: Final = 0x1000
_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_UTIME_OMIT: Final = (1 << 30) - 2
_NOW: Final = (1 << 30) - 1


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
        file = on_file(seen)
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


#: What each call is about to do; None where that is nothing to the directory.
DECODERS: Final[dict[str, Callable[[Seen], Operation | None]]] = {
    "open": _open,
    "openat": _openat,
    "openat2": _openat2,
    "creat": _creat,
    "mknod": _mknod,
    "mknodat": _mknodat,
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
}
