"""One small supervisor process per run: it starts the job, and leaves when nothing of the job is left.

pytest forks the supervisor and waits. The supervisor forks the job, watches its deadline and pytest's life, and at the
end kills every descendant, whatever session it is in. So nothing of a job survives it, nor Ctrl-C, nor pytest's death.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from pytest_ckpt.errors import HarnessError, InvalidArgument
from pytest_ckpt.runs import processes, spawn
from pytest_ckpt.runs.payload import dump
from pytest_ckpt.runs.processes import Ended, Leftover
from pytest_ckpt.runs.supervision import KILL_BOUND, LOOK_EVERY, STACKS_BOUND, STACKS_FOLLOW, Order, supervise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_ckpt.crashes.tracer import Tracing

__all__ = [
    "GRACE",
    "STACKS_FOLLOW",
    "Ended",
    "ForkedRun",
    "Leftover",
    "first_to_end",
    "run_forked",
    "run_spawned",
    "start_forked",
]

#: Seconds that processes of a job get to end by themselves once it has ended.
GRACE: Final = 0.5
#: Seconds that a supervisor may need for anything else, on a machine that is busy.
_SLACK: Final = 10.0
# The warning filters belong to the whole process, and two threads that change them at a time undo each other's change.
_FORKING: Final = threading.Lock()


def run_forked(  # noqa: PLR0913 - what a process can be given
    body: Callable[[], int],
    *,
    timeout: float,
    stdout: Path,
    stderr: Path,
    grace: float = GRACE,
    tracing: Tracing | None = None,
) -> Ended:
    """Run a job in a forked copy of this process, and return when it and all it started have ended.

    Args:
        body: the job; what it returns is its exit code, an exception that it lets out makes that `spawn.CRASHED`.
        timeout: seconds after which the job writes its stacks to `stderr` and is killed.
        stdout: file for descriptor 1, emptied first.
        stderr: file for descriptor 2, emptied first; may be the same.
        grace: seconds that processes of the job get to end by themselves once it has ended.
        tracing: which directory's changes are noted, and where; `crashes.tracer.why_not` says whether that can be.

    Raises:
        HarnessError: the supervisor could not do its work.
        InvalidArgument: `timeout` or `grace` is no time.
    """
    run = start_forked(body, timeout=timeout, stdout=stdout, stderr=stderr, grace=grace, tracing=tracing)
    with closing(run):
        return run.end()


def start_forked(  # noqa: PLR0913 - what a process can be given
    body: Callable[[], int],
    *,
    timeout: float,
    stdout: Path,
    stderr: Path,
    grace: float = GRACE,
    tracing: Tracing | None = None,
) -> ForkedRun:
    """Start a job as `run_forked` does, without waiting for its end.

    Raises:
        HarnessError: this is not Linux.
        InvalidArgument: `timeout` or `grace` is no time.
    """
    if sys.platform != "linux":
        message = f"run_forked needs Linux and this is {sys.platform}; call run_spawned instead."
        raise HarnessError(message)
    if not (timeout > 0 and grace >= 0 and math.isfinite(timeout + grace)):
        message = f"timeout must be above and grace at least 0 seconds; got timeout={timeout}, grace={grace}"
        raise InvalidArgument(message)
    for path in (stdout, stderr):
        path.write_bytes(b"")
    run = ForkedRun(bound=timeout + grace + STACKS_BOUND + 2 * KILL_BOUND + _SLACK)
    try:
        run.start(Order(body=body, timeout=timeout, grace=grace, stdout=stdout, stderr=stderr, tracing=tracing))
    except BaseException:
        run.close()
        raise
    return run


def first_to_end(runs: Sequence[ForkedRun]) -> ForkedRun:
    """Wait until one of several runs has ended, and return it."""
    poll = select.poll()
    for run in runs:
        poll.register(run.channel, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll(LOOK_EVERY * 1000)}
        for run in runs:
            if run.channel.fileno() in ready or run.is_over():
                return run


def run_spawned(  # noqa: PLR0913 - what a process can be given
    function: Callable[..., int],
    args: tuple[object, ...] = (),
    *,
    timeout: float,
    stdout: Path,
    stderr: Path,
    grace: float = GRACE,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    waiting: Callable[[], None] | None = None,
    tracing: Tracing | None = None,
) -> Ended:
    """Run a job in a fresh interpreter, for what does not survive a fork (CUDA), and where there is none.

    Args:
        function: what to call there; pickled by cloudpickle, so it may be local to another function.
        args: its arguments.
        cwd: the job's working directory, by default this one.
        env: the job's environment, by default this one.
        waiting: called about five times a second until it has ended; on Linux only.

    The other arguments and what is raised are those of `run_forked`; outside Linux, only processes in the job's own
    process group are found and killed.

    Raises:
        HarnessError: also, something in the call can't be pickled.
    """
    file, name = tempfile.mkstemp(prefix="job-", suffix=".pickle", dir=stdout.parent.resolve())
    payload = Path(name)
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(dump(function, args))
        words, environment = spawn.command(payload), dict(os.environ if env is None else env)
        if sys.platform == "linux":
            become = partial(spawn.replace_process, words, cwd, environment)
            run = start_forked(become, timeout=timeout, stdout=stdout, stderr=stderr, grace=grace, tracing=tracing)
            with closing(run):
                return run.end(waiting)
        return spawn.run_in_group(
            words, cwd=cwd, env=environment, timeout=timeout, stdout=stdout, stderr=stderr, grace=grace
        )
    finally:
        payload.unlink(missing_ok=True)


class ForkedRun:
    """A run in a forked process, by its supervisor, as the process that asked for it sees it.

    Attributes:
        channel: has something to read once the run has ended.
    """

    def __init__(self, *, bound: float) -> None:
        """Prepare a run whose end is reported within `bound` seconds from now, whatever happens."""
        processes.prctl_function()
        self.channel, self._theirs = processes.open_channel()
        self._bound = bound
        self._deadline = time.monotonic() + bound
        self._pid: int | None = None
        self._status: int | None = None

    def start(self, order: Order) -> None:
        """Fork it; with signals blocked, so that in the child no handler of this process ever runs."""
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            with suppress(AttributeError, OSError, ValueError):  # None or closed
                stream.flush()  # type: ignore[union-attr]
        caller = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            self._fork()
            if self._pid == 0:
                supervise(order, self._theirs, caller)
        finally:
            if self._pid == 0:
                os._exit(spawn.CRASHED)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._theirs.close()

    def _fork(self) -> None:
        with _FORKING, warnings.catch_warnings():
            # The child is made for that: it takes no lock that another thread may hold.
            warnings.filterwarnings("ignore", r"This process .* is multi-threaded, use of fork", DeprecationWarning)
            self._pid = os.fork()

    def is_over(self) -> bool:
        """Say whether nothing can be waited for any more: its supervisor has ended, or should have."""
        return self._has_ended() or time.monotonic() > self._deadline

    def end(self, waiting: Callable[[], None] | None = None) -> Ended:
        """Wait for its end, and return how it was.

        Args:
            waiting: called about five times a second meanwhile.

        Raises:
            HarnessError: the supervisor could not do its work.
        """
        self.channel.settimeout(LOOK_EVERY)
        received = b""
        while not received.endswith(b"\n"):
            received += self._receive(waiting) or self._complain()
        answer = json.loads(received)
        if "error" in answer:
            raise HarnessError(answer["error"])
        return Ended.from_json(answer)

    def _receive(self, waiting: Callable[[], None] | None) -> bytes:
        """Return what it sends next, nothing if nothing will come."""
        while True:
            last_look = self.is_over()
            try:
                return self.channel.recv(1 << 16)
            except TimeoutError:
                if last_look:
                    return b""
                if waiting is not None:
                    waiting()

    def _complain(self) -> NoReturn:
        self._wait(LOOK_EVERY)
        how = f"has not reported within {self._bound:.0f} s"
        if self._status is not None:
            how = f"ended with {os.waitstatus_to_exitcode(self._status)} (below 0: a signal) before it could report"
        message = (
            f"The supervisor of a run (process {self._pid}) {how}, so how the job ended is not known. "
            "Something has killed or stopped it: the kernel when memory ran out (see its log), or the job itself. "
            "The job was killed; processes that it had started may be left."
        )
        raise HarnessError(message)

    def close(self) -> None:
        """Hang up, at which it kills what is left of the job, and wait until it is gone."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        self._theirs.close()
        self._wait(2 * KILL_BOUND)
        if self._pid is not None and self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait(KILL_BOUND)

    def _wait(self, bound: float) -> None:
        deadline = time.monotonic() + bound
        while not self._has_ended() and time.monotonic() < deadline:
            time.sleep(0.002)

    def _has_ended(self) -> bool:
        if self._pid is None or self._status is not None:
            return True
        try:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:  # somebody in this process waits for any child, and got it
            pid, status = self._pid, 0
        self._status = status if pid else None
        return pid != 0
