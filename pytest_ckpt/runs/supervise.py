"""One small supervisor process per run: it starts the job, and leaves when nothing of the job is left.

pytest forks the supervisor and waits. The supervisor forks the job, watches its deadline and pytest's life, and at the
end kills every descendant, whatever session it is in. So nothing of a job survives it, nor Ctrl-C, nor pytest's death.
"""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pytest_ckpt.errors import HarnessError, InvalidArgument
from pytest_ckpt.runs import processes, spawn
from pytest_ckpt.runs.forgetting import reset_signals
from pytest_ckpt.runs.payload import dump
from pytest_ckpt.runs.processes import Children, Ended, Leftover

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["STACKS_FOLLOW", "Ended", "Leftover", "run_forked", "run_spawned"]

#: The line in the file of stderr after which the stacks of a job that ran out of time follow.
STACKS_FOLLOW: Final = "pytest-ckpt: the job was still running at its deadline; its Python threads stood here:"
#: Seconds for a job that ran out of time to write its stacks, and for killed processes to be gone.
_STACKS_BOUND: Final = 0.5
_KILL_BOUND: Final = 10.0
#: Seconds that a supervisor may need for anything else, on a machine that is busy.
_SLACK: Final = 10.0
#: Seconds between looks at what announces itself only as a rule: the other side's death.
_LOOK_EVERY: Final = 0.2
# The warning filters belong to the whole process, and two threads that change them at a time undo each other's change.
_FORKING: Final = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What a supervisor is to do."""

    body: Callable[[], int]
    timeout: float
    grace: float
    stdout: Path
    stderr: Path


def run_forked(body: Callable[[], int], *, timeout: float, stdout: Path, stderr: Path, grace: float = 0.5) -> Ended:
    """Run a job in a forked copy of this process, and return when it and all it started have ended.

    Args:
        body: the job; what it returns is its exit code, an exception that it lets out makes that `spawn.CRASHED`.
        timeout: seconds after which the job writes its stacks to `stderr` and is killed.
        stdout: file for descriptor 1, emptied first.
        stderr: file for descriptor 2, emptied first; may be the same.
        grace: seconds that processes of the job get to end by themselves once it has ended.

    Raises:
        HarnessError: the supervisor could not do its work.
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
    supervisor = _Supervisor()
    try:
        supervisor.start(_Order(body=body, timeout=timeout, grace=grace, stdout=stdout, stderr=stderr))
        return supervisor.report(timeout + grace + _STACKS_BOUND + 2 * _KILL_BOUND + _SLACK)
    finally:
        supervisor.dismiss()


def run_spawned(  # noqa: PLR0913 - what a process can be given
    function: Callable[..., int],
    args: tuple[object, ...] = (),
    *,
    timeout: float,
    stdout: Path,
    stderr: Path,
    grace: float = 0.5,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run a job in a fresh interpreter, for what does not survive a fork (CUDA), and where there is none.

    Args:
        function: what to call there; pickled by cloudpickle, so it may be local to another function.
        args: its arguments.
        cwd: the job's working directory, by default this one.
        env: the job's environment, by default this one.

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
            return run_forked(become, timeout=timeout, stdout=stdout, stderr=stderr, grace=grace)
        return spawn.run_in_group(
            words, cwd=cwd, env=environment, timeout=timeout, stdout=stdout, stderr=stderr, grace=grace
        )
    finally:
        payload.unlink(missing_ok=True)


class _Supervisor:
    """The supervisor as the process that asked for it sees it."""

    def __init__(self) -> None:
        processes.prctl_function()
        self._channel, self._theirs = processes.open_channel()
        self._pid: int | None = None
        self._status: int | None = None

    def start(self, order: _Order) -> None:
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
                _supervise(order, self._theirs, caller)
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

    def report(self, bound: float) -> Ended:
        """Wait for its report."""
        self._channel.settimeout(_LOOK_EVERY)
        deadline = time.monotonic() + bound
        received = b""
        while not received.endswith(b"\n"):
            received += self._receive(deadline) or self._complain(bound)
        answer = json.loads(received)
        if "error" in answer:
            raise HarnessError(answer["error"])
        return Ended.from_json(answer)

    def _receive(self, deadline: float) -> bytes:
        """Return what it sends next, nothing if nothing will come."""
        while True:
            last_look = self._has_ended() or time.monotonic() > deadline
            try:
                return self._channel.recv(1 << 16)
            except TimeoutError:
                if last_look:
                    return b""

    def _complain(self, bound: float) -> NoReturn:
        self._wait(_LOOK_EVERY)
        how = f"has not reported within {bound:.0f} s"
        if self._status is not None:
            how = f"ended with {os.waitstatus_to_exitcode(self._status)} (below 0: a signal) before it could report"
        message = (
            f"The supervisor of a run (process {self._pid}) {how}, so how the job ended is not known. "
            "Something has killed or stopped it: the kernel when memory ran out (see its log), or the job itself. "
            "The job was killed; processes that it had started may be left."
        )
        raise HarnessError(message)

    def dismiss(self) -> None:
        """Hang up, at which it kills what is left of the job, and wait until it is gone."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        self._theirs.close()
        self._wait(2 * _KILL_BOUND)
        if self._pid is not None and self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait(_KILL_BOUND)

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


def _supervise(order: _Order, channel: socket.socket, caller: int) -> NoReturn:
    """Be the supervisor: see the job to its end, report it and leave."""
    try:
        answer = _Supervision(order, channel, caller).run()
    except BaseException:  # noqa: BLE001 - the caller is told, whatever it is
        answer = {"error": f"The supervisor of a run failed:\n{traceback.format_exc()}"}
    channel.settimeout(_KILL_BOUND)
    with suppress(OSError):  # the caller has hung up
        channel.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


class _Supervision:
    """The job as its supervisor sees it."""

    def __init__(self, order: _Order, channel: socket.socket, caller: int) -> None:
        self._order = order
        self._channel = channel
        self._caller = caller
        self._hung_up = False
        gc.freeze()  # the garbage of pytest is not ours to finalise
        os.setsid()
        processes.become_subreaper()
        reset_signals()
        _open_standard_streams(order)
        self._job = self._start_job()
        for fd in processes.open_descriptors():  # only now: the job may need what its fixtures have opened
            if fd > 2 and fd != channel.fileno():  # noqa: PLR2004 - the standard streams
                with suppress(OSError):
                    os.close(fd)
        self._children = Children(self._job)

    def _start_job(self) -> int:
        supervisor = os.getpid()
        job = os.fork()
        if job == 0:
            spawn.forked_job(partial(_without_channels, self._order.body), supervisor)
        return job

    def run(self) -> dict[str, Any]:
        """See the job to its end, and what it has started; return the report."""
        try:
            started = time.monotonic()
            self._until(self._job_has_ended, self._order.timeout)
            timed_out = not self._job_has_ended() and not self._hung_up
            if timed_out:
                self._end_job()
            seconds = time.monotonic() - started
            self._until(self._all_have_ended, self._order.grace)
        finally:
            leftovers = self._children.kill_all(_KILL_BOUND)
        if self._children.any_left or self._children.job_status is None:
            return {"error": self._immortal()}
        code = os.waitstatus_to_exitcode(self._children.job_status)
        return Ended.of(code, timed_out=timed_out, leftovers=leftovers, seconds=seconds).to_json()

    def _until(self, condition: Callable[[], bool], seconds: float, look_every: float = _LOOK_EVERY) -> None:
        """Wait until something holds, the time is up or pytest has hung up or died."""
        deadline = time.monotonic() + seconds
        self._children.collect()
        while not condition() and not self._hung_up and (left := deadline - time.monotonic()) > 0:
            spoke = self._children.wait(min(left, look_every), self._channel)
            # Its death ends the channel, unless somebody it has forked holds a copy of its end.
            self._hung_up = spoke or os.getppid() != self._caller

    def _job_has_ended(self) -> bool:
        return self._children.job_status is not None

    def _all_have_ended(self) -> bool:
        return not self._children.any_left

    def _end_job(self) -> None:
        """Let the job write where it stands, and kill it."""
        if processes.catches(self._job, spawn.STACKS_SIGNAL):  # as long as it has not become another program
            os.write(2, f"\n{STACKS_FOLLOW}\n".encode())
            os.kill(self._job, spawn.STACKS_SIGNAL)
            os.kill(self._job, signal.SIGCONT)
            self._until(self._stacks_are_written(), _STACKS_BOUND, look_every=0.01)
        if not self._job_has_ended():
            os.kill(self._job, signal.SIGKILL)
            self._until(self._job_has_ended, _KILL_BOUND)

    def _stacks_are_written(self) -> Callable[[], bool]:
        """Return a condition; it takes two looks, as between its way and its handler a signal is nowhere to be seen."""
        quiet = 0

        def condition() -> bool:
            nonlocal quiet
            quiet = 0 if processes.is_handling(self._job, spawn.STACKS_SIGNAL) else quiet + 1
            return self._job_has_ended() or quiet > 1

        return condition

    def _immortal(self) -> str:
        left = ", ".join(f"{pid} ({processes.command_of(pid)})" for pid in processes.descendants(os.getpid()))
        return (
            f"Processes of a job were still there {_KILL_BOUND:.0f} s after SIGKILL: {left}. "
            "They run as another user, or are blocked in the kernel, such as by a file system that does not answer "
            "(see `ps -o pid,stat,wchan,args`). Mend that and end them by hand."
        )


def _open_standard_streams(order: _Order) -> None:
    append = os.O_WRONLY | os.O_APPEND
    for fd, path, flags in ((0, os.devnull, os.O_RDONLY), (1, order.stdout, append), (2, order.stderr, append)):
        opened = os.open(path, flags)
        os.dup2(opened, fd)
        os.set_inheritable(fd, True)  # noqa: FBT003 - its signature; dup2 leaves alone what is already in place
        if opened != fd:
            os.close(opened)


def _without_channels(body: Callable[[], int]) -> int:
    processes.close_channels()
    return body()
