"""A system call in which a thread waits: its arguments, and what they point to."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.crashes.target import AT_FDCWD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.crashes.place import Place
    from pytest_ckpt.crashes.target import Descriptor, Target


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


def on_file(seen: Seen, position: int = 0) -> tuple[Descriptor, str | None] | None:
    """Return the regular file that a descriptor stands for and its path, if it is ours."""
    name = seen.target.link_of(seen.number(position))
    if not seen.place.holds(name):
        return None
    found = seen.target.descriptor(seen.number(position), name)
    return (found, seen.place.relative(found.path)) if found.is_file else None
