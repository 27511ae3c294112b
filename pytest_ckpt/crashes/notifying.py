"""The calls that are stopped, as the kernel tells of them, and how it is told what becomes of each."""

from __future__ import annotations

import errno
import select
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seccompy.notify import Listener, Notification

    from pytest_ckpt.crashes.holding import Holding

#: linux/seccomp.h: how the listener and the threads wake each other.
_SET_FLAGS: Final = 0x40082104
#: Milliseconds without a call after which there is time for something else.
_IDLE_MS: Final = 10


def notifications(listener: Listener, holding: Holding, *, idle: Callable[[], None]) -> Iterator[Notification]:
    """Yield each call that is stopped, some later than others, until no process is left that could be.

    Where none was for some time, `idle` is called.
    """
    _wake_here(listener)
    poll = select.poll()
    poll.register(listener.fileno(), select.POLLIN)
    while True:
        late = holding.due(listener.valid)
        if late is not None:
            yield late
            continue
        found = poll.poll(holding.wait_ms(_IDLE_MS))
        if not found:
            idle()
            if holding:
                continue
            found = poll.poll()
        ((_, events),) = found
        if not events & select.POLLIN:
            return
        received = _received(listener)
        if received is not None and not holding.takes(received):
            yield received


def _received(listener: Listener) -> Notification | None:
    """Return the next call that is stopped; None where its process was killed meanwhile."""
    from seccompy import SeccompError

    try:
        return listener.recv()
    except SeccompError as error:
        if error.errno not in {errno.ENOENT, errno.EINTR}:
            raise
    return None


def _wake_here(listener: Listener) -> None:
    """Have threads go on where the tracer runs, at once: on Linux 6.6 and newer."""
    import fcntl

    from seccompy.notify import FdFlag

    with suppress(OSError):
        # The kernel takes the flags by value; seccompy 0.2 passes an address, which is refused.
        fcntl.ioctl(listener.fileno(), _SET_FLAGS, int(FdFlag.SYNC_WAKE_UP))


def respond(listener: Listener, number: int, refused: int) -> None:
    """Let a call go on, or have it fail with the error of that number where that is not 0."""
    from seccompy import SeccompError
    from seccompy.notify import RespFlag

    try:
        if refused:
            listener.respond(number, error=refused)
        else:
            listener.respond(number, flags=RespFlag.CONTINUE)
    except SeccompError as error:
        if error.errno != errno.ENOENT:  # its process was killed meanwhile
            raise
