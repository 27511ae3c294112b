"""Damaging a job's directory as lost files, cut transfers and forgotten runs do."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ckpt.records.experiment import Damage

#: By how many nanoseconds what another run left is older: thirty days.
_LONG_AGO: Final = 30 * 24 * 3600 * 10**9


def inflict(damage: Damage, root: Path) -> None:
    """Damage the directory `root`."""
    path = root / damage.path
    match damage.kind:
        case "missing" if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        case "missing":
            path.unlink()
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "renamed":
            _rename(path, root / damage.target)
        case "stale":
            _leave_copy(path, root / damage.target)


def _rename(path: Path, target: Path) -> None:
    """Give a file or directory another name, and what lies beside it with another ending, as a marker does, that of its own."""
    beside = [each for each in path.parent.iterdir() if each.name.startswith(f"{path.stem}.") and each != path]
    for each in beside:
        each.rename(each.with_name(target.stem + each.name.removeprefix(path.stem)))
    path.rename(target)


def _leave_copy(path: Path, target: Path) -> None:
    """Copy a file or directory, as if it had been written long ago."""
    if path.is_dir():
        shutil.copytree(path, target, symlinks=True)
    else:
        shutil.copy2(path, target)
    for each in (*target.rglob("*"), target):
        if not each.is_symlink():
            time = each.stat().st_mtime_ns - _LONG_AGO
            os.utime(each, ns=(time, time))
