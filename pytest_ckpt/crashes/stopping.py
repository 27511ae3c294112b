"""Which calls stop a thread until the tracer lets it go on, and whether that can be done here."""

from __future__ import annotations

import errno
import os
import platform
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes import UNWATCHED
from pytest_ckpt.crashes.calls import DECODERS

if TYPE_CHECKING:
    from seccompy import Filter

#: linux/mman.h
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_ANONYMOUS: Final = 0x20

#: linux/fs.h: the requests by which a file is made to share the bytes of another.
_CLONES: Final = (0x40049409, 0x4020940D)
#: By which argument an open tells its flags.
_OPENS: Final = {"open": 1, "openat": 2}
#: What has a process run another program.
EXECS: Final = ("execve", "execveat")
_ARCHITECTURES: Final = frozenset({"x86_64", "aarch64"})


def why_not() -> str:
    """Return why nothing can be traced here; empty where it can."""
    if sys.platform != "linux":
        return f"system calls are traced on Linux only, and this is {sys.platform}"
    if platform.machine() not in _ARCHITECTURES:
        return f"system calls are traced on x86_64 and aarch64, and this is {platform.machine()}"
    try:
        from seccompy import Action, FilterFlag, SeccompError, action_supported, flag_supported
    except ImportError:
        return "seccompy is not installed: pip install seccompy"
    try:
        able = action_supported(Action.USER_NOTIF) and flag_supported(FilterFlag.NEW_LISTENER)
    except SeccompError as error:
        return f"this kernel or container forbids seccomp: {error}"
    return "" if able else "this kernel or container has no seccomp user notification"


def _filter() -> Filter:
    """Return the filter that stops a thread in each call that may change a directory."""
    from seccompy import Filter, FilterFlag, flag_supported

    flags = FilterFlag.NEW_LISTENER
    if flag_supported(flags | FilterFlag.WAIT_KILLABLE_RECV):
        flags |= FilterFlag.WAIT_KILLABLE_RECV  # else a signal has a call begin again, and be seen twice
    made = Filter(flags=flags)
    for name in (*DECODERS, *EXECS):
        with suppress(ValueError):  # this architecture has no such call
            _add(made, name)
    with suppress(
        ValueError
    ):  # what goes through a ring is not seen: who asks for one does without, as in most containers
        made.errno("io_uring_setup", errno.EPERM)
    # who asks for a copy without bytes takes one with bytes where a file system has no such thing
    for request in _CLONES:
        made.errno("ioctl", errno.EOPNOTSUPP, args={1: request})
    return made


def _add(made: Filter, name: str) -> None:
    """Have one call notified, as far as its arguments do not say that it changes nothing."""
    from seccompy import ArgCmp, CmpOp

    if name in _OPENS:
        for flag in (os.O_CREAT, os.O_TRUNC):
            made.notify(name, args=[ArgCmp(_OPENS[name], CmpOp.MASKED_EQ, flag, flag)])
    elif name == "write":
        made.notify(name, args=[ArgCmp(0, CmpOp.NE, UNWATCHED)])
    elif name == "mmap":
        writable = ArgCmp(2, CmpOp.MASKED_EQ, _PROT_WRITE, _PROT_WRITE)
        shared = ArgCmp(3, CmpOp.MASKED_EQ, _MAP_SHARED, _MAP_SHARED | _MAP_ANONYMOUS)
        made.notify(name, args=[writable, shared])
    else:
        made.notify(name)


def be_traced(channel: socket.socket) -> None:
    """Put this process, which has one thread, and all that it will start under the tracer at the channel's other end."""
    made = _filter()
    made.program  # noqa: B018 - compiled now: the process must call nothing that is stopped before it is listened to
    listener = made.load()
    assert listener is not None  # noqa: S101 - the filter has the flag for it
    socket.send_fds(channel, [str(os.getpid()).encode()], [listener.fileno()])
    listener.close()
    channel.close()
