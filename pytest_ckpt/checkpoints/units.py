"""What a checkpoint is called: a file or directory, with further files that belong to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_ckpt.records.tree import Entry, Tree

_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A path that is a checkpoint whenever it exists.

    Attributes:
        others: paths of further files that belong to it, beside the named one.
        claimed: the step in its name.
        claim_is_step: whether a framework's layout says that this number counts optimizer steps.
    """

    path: str
    others: tuple[str, ...] = ()
    claimed: int | None = None
    claim_is_step: bool = False

    def entries(self, tree: Tree) -> tuple[Entry, ...]:
        """Return its files in a tree."""
        return tuple(entry for path in (self.path, *self.others) for entry in tree.files_under(path))


def number_in(path: str, others: tuple[str, ...] = ()) -> Unit:
    """Return the unit of a path, with the last number in its name."""
    numbers = numbers_in(path)
    return Unit(path=path, others=others, claimed=int(numbers[-1]) if numbers else None)


def numbers_in(path: str) -> tuple[str, ...]:
    """Return all numbers in a path's name."""
    return tuple(_NUMBER.findall(PurePosixPath(path).name))
