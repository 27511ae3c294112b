"""A file of tensors opened: what it holds, and how the file is written again once its memory was changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.checkpoints.formats.tree import Branch, Leaves, leaves

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_ckpt.checkpoints.file_content import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One opened file.

    Attributes:
        branches: what it holds; a single branch with an empty key, unless the file is a sequence of files.
        rewritten: returns the bytes of the whole file, with what was written into the storages since it was opened.
    """

    path: Path
    format: Format
    branches: tuple[Branch, ...]
    rewritten: Callable[[], bytes | memoryview]

    def leaves(self) -> Leaves:
        """Return everything the file holds, by key path."""
        return leaves(self.path, self.branches)
