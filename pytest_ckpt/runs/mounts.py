"""A directory shown to one process at the path of another, so that runs which share a path can go on side by side.

Linux only: the process gets a mount namespace of its own, and a user namespace too where it may not mount otherwise.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from pytest_ckpt.errors import HarnessError
from pytest_ckpt.runs.supervise import run_forked

# numbers of linux/sched.h and sys/mount.h
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 1 << 18

#: Seconds that a trial may take.
_TRIAL: Final = 10.0


@cache
def available() -> bool:
    """Say whether a process can be shown a directory elsewhere; tried once, as containers and kernels may forbid it."""
    if sys.platform != "linux":
        return False
    with tempfile.TemporaryDirectory(prefix="ckpt-mount-") as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        target.mkdir()
        nowhere = Path(os.devnull)  # a file in the folder could still be made when an interrupt has it removed
        try:
            run_forked(partial(_try, source, target), timeout=_TRIAL, stdout=nowhere, stderr=nowhere)
        except HarnessError:
            return False
        return (source / "seen").exists()


def _try(source: Path, target: Path) -> int:
    show(source, at=target)
    (target / "seen").touch()
    return 0


def show(source: Path, *, at: Path) -> None:
    """Let this process, and all that it will start, find the directory `source` at the path `at`.

    The process must have no other thread.

    Raises:
        OSError: the kernel or the container does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _call("unshare", _CLONE_NEWNS)
    except PermissionError:
        _call("unshare", _CLONE_NEWNS | _CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)
    _call("mount", os.fsencode(source), os.fsencode(at), None, ctypes.c_ulong(_MS_BIND), None)
    here = Path.cwd()
    if here.is_relative_to(at):  # else it would go on standing in what is hidden now
        os.chdir(here)


def _call(name: str, *arguments: object) -> None:
    library: Any = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
