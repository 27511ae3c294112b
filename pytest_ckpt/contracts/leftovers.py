"""Names under which savers write what is not finished yet; one that is still there in the end was never finished."""

from __future__ import annotations

import fnmatch
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_ckpt.records.run import RunRecord

_PATTERNS: Final = (
    "tmp-*",
    "*.tmp",
    "*-unfinished",
    "checkpoint-is-incomplete.txt",
    "*.orbax-checkpoint-tmp*",
    "incoming-*",
    ".metadata.tmp",
)


def is_temporary(path: str) -> bool:
    """Say whether a path, or a directory that it lies in, is called as something unfinished is."""
    return any(fnmatch.fnmatchcase(part, pattern) for part in PurePosixPath(path).parts for pattern in _PATTERNS)


def leftovers(run: RunRecord) -> tuple[str, ...]:
    """Return what this run left under such names, a directory without what is in it."""
    if not run.looks:
        return ()
    old = {entry.path for entry in run.looks[0].tree.entries}
    found = [entry.path for entry in run.looks[-1].tree.entries if entry.path not in old and is_temporary(entry.path)]
    return tuple(path for path in found if not is_temporary(str(PurePosixPath(path).parent)))
