"""Where the symbolic links lead that a job keeps beside its checkpoints, such as one to the best."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ckpt.records.run import RunRecord


def links(run: RunRecord) -> dict[str, str]:
    """Return the links that are there in the end, with what each leads to: below the job's directory, relative to it."""
    found = {entry.path: _target(entry.path, entry.content, run) for entry in run.left.entries if entry.kind == "link"}
    return {path: _end(path, found) for path in found}


def _target(path: str, content: str, run: RunRecord) -> str:
    joined = posixpath.normpath(posixpath.join(run.directory, posixpath.dirname(path), content))
    return str(PurePosixPath(joined).relative_to(run.directory)) if _is_below(joined, run) else joined


def _is_below(target: str, run: RunRecord) -> bool:
    return PurePosixPath(target).is_relative_to(run.directory)


def _end(path: str, found: Mapping[str, str]) -> str:
    """Follow links that lead to links, as long as none is met twice."""
    seen = {path}
    while (target := found[path]) in found and target not in seen:
        seen.add(target)
        path = target
    return target
