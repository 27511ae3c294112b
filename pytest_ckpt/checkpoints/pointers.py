"""Which names in a run's directory lead to a checkpoint by its absolute path: they dangle once the directory is moved."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.checkpoints.store import EvidenceStore
    from pytest_ckpt.records.run import Look
    from pytest_ckpt.records.tree import Entry

#: Bytes of a file that holds nothing but a path.
_AT_MOST: Final = 4096


def absolute_pointers(looks: Sequence[Look], store: EvidenceStore, root: Path) -> dict[str, str]:
    """Return the links and the files of one line that name something below `root` absolutely, with what they name.

    Those that were there at the first look are left out.
    """
    if not looks:
        return {}
    before = {entry.path: entry.content for entry in looks[0].tree.entries}
    new = [entry for entry in looks[-1].tree.entries if entry.kind != "dir" and before.get(entry.path) != entry.content]
    named = ((entry.path, _named(entry, store)) for entry in new)
    return {path: target for path, target in named if target and _is_below(target, (root, root.resolve()))}


def _named(entry: Entry, store: EvidenceStore) -> str:
    """Return the absolute path that a link leads to or that is all a file says; empty if there is none."""
    if entry.kind == "link":
        return entry.content if PurePosixPath(entry.content).is_absolute() else ""
    if not 0 < entry.size <= _AT_MOST:
        return ""
    text = store.path_of(entry.content).read_bytes().strip()
    is_path = text.startswith(b"/") and b"\n" not in text and b"\0" not in text
    return os.fsdecode(text) if is_path else ""


def _is_below(target: str, roots: Iterable[Path]) -> bool:
    return any(PurePosixPath(target).is_relative_to(root) and Path(target) != root for root in roots)
