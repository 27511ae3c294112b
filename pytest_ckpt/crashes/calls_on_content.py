"""The system calls that write to files, cut and lengthen them, and make them durable."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.seen import Seen, on_file
from pytest_ckpt.records.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/falloc.h, linux/fs.h
_FALLOC_KEEP_SIZE: Final = 1
_FALLOC_PUNCH_HOLE: Final = 2
_FALLOC_ZERO_RANGE: Final = 16
_RWF_APPEND: Final = 0x10


def _written(seen: Seen, data: Callable[[], bytes], offset: int | None, position: int = 0) -> Operation | None:
    file = on_file(seen, position)
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


def _unfollowed(seen: Seen, position: int) -> Operation | None:
    file = on_file(seen, position)
    return None if file is None else Operation(kind="unseen", path=file[1], inode=file[0].inode)


def _ftruncate(seen: Seen) -> Operation | None:
    file = on_file(seen)
    if file is None:
        return None
    return Operation(kind="truncate", path=file[1], inode=file[0].inode, size=seen.long(1))


def _truncate(seen: Seen) -> Operation | None:
    path = seen.place.relative(seen.path(-1, 0, follow=True))
    return None if path is None else Operation(kind="truncate", path=path, size=seen.long(1))


def _fallocate(seen: Seen) -> Operation | None:
    file = on_file(seen)
    mode = seen.number(1)
    if file is None or mode == _FALLOC_KEEP_SIZE:
        return None
    found = Operation(kind="allocate", path=file[1], inode=file[0].inode, offset=seen.long(2), size=seen.long(3))
    if mode == 0:
        return found
    if mode in {_FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, _FALLOC_ZERO_RANGE, _FALLOC_ZERO_RANGE | _FALLOC_KEEP_SIZE}:
        return replace(found, kind="zero", exclusive=bool(mode & _FALLOC_KEEP_SIZE))
    return replace(found, kind="unseen")


def _fsync(seen: Seen) -> Operation | None:
    name = seen.target.link_of(seen.number(0))
    if not name.startswith("/"):
        return None
    found = seen.target.descriptor(seen.number(0), name)
    path = seen.place.relative(found.path)
    return Operation(kind="sync", path=path, inode=found.inode)


def _sync(seen: Seen) -> Operation | None:
    del seen
    return Operation(kind="sync_all", path="")


#: What each call is about to do; None where that is nothing to the directory.
DECODERS: Final[dict[str, Callable[[Seen], Operation | None]]] = {
    "write": _write,
    "pwrite64": _pwrite,
    "writev": _writev,
    "pwritev": _pwritev,
    "pwritev2": _pwritev2,
    "sendfile": _sendfile,
    "copy_file_range": _copy_file_range,
    "splice": _splice,
    "mmap": _mmap,
    "ftruncate": _ftruncate,
    "truncate": _truncate,
    "fallocate": _fallocate,
    "fsync": _fsync,
    "fdatasync": _fsync,
    "syncfs": _sync,
    "sync": _sync,
}
