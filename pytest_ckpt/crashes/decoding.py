"""Understanding a call that was stopped: what it is about to do, by which thread, process and rank."""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes.calls import DECODERS
from pytest_ckpt.crashes.seen import Seen
from pytest_ckpt.crashes.stopping import EXECS

if TYPE_CHECKING:
    from collections.abc import Callable

    from seccompy.notify import Notification

    from pytest_ckpt.crashes.place import Place
    from pytest_ckpt.crashes.target import Targets
    from pytest_ckpt.records.operation import Operation

#: What is met where the kernel will refuse the call as well, or the thread has gone.
_REFUSED: Final = frozenset({errno.EBADF, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESRCH})


class Decoding:
    """Tells what calls of a job are about to do.

    Args:
        targets: the job's threads.

    Attributes:
        error: what could not be understood, the first of it; the job goes on, and its log can't be trusted.
    """

    def __init__(self, targets: Targets) -> None:
        from seccompy.syscalls import syscall_nr

        self.error = ""
        self._targets = targets
        self._decoders: dict[int, tuple[str, Callable[[Seen], Operation | None]]] = {}
        for name, decoder in DECODERS.items():
            with suppress(ValueError):  # a call of another architecture
                self._decoders[syscall_nr(name)] = (name, decoder)
        self._execs = {syscall_nr(name) for name in EXECS}

    def is_exec(self, call: Notification) -> bool:
        """Say whether a call makes the process another program."""
        return call.nr in self._execs

    def forget(self, thread: int) -> None:
        """Forget the process of a thread: it is about to run another program, and may have another rank then."""
        with suppress(OSError):
            self._targets.forget_process(self._targets.of(thread).process)

    def operation(self, call: Notification, place: Place) -> Operation | None:
        """Return what a call is about to do to a place; None where that is nothing, or could not be understood."""
        known = self._targets.knows(call.pid)
        try:
            return self._operation(call, place)
        except OSError as error:
            if known:  # by a number that was another thread's, perhaps
                self._targets.forget(call.pid)
                return self.operation(call, place)
            if error.errno not in _REFUSED:
                self._fail(call, str(error))
        except Exception as error:  # noqa: BLE001 - the job must go on, whatever it is
            self._fail(call, repr(error))
        return None

    def _fail(self, call: Notification, why: str) -> None:
        self.error = self.error or f"{self._decoders[call.nr][0]} could not be followed: {why}"

    def _operation(self, call: Notification, place: Place) -> Operation | None:
        name, decoder = self._decoders[call.nr]
        target = self._targets.of(call.pid)
        found = decoder(Seen(target, call.args, place))
        if found is None:
            return None
        return replace(
            found,
            call=name,
            process=target.process,
            thread=call.pid,
            rank=self._targets.rank_of(target),
            background=self._targets.is_background(target),
            time_ns=found.time_ns or time.time_ns(),
        )
