"""The supervisor's own process: it forks the job, sees it to its end, kills what is left, and reports."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pytest_ckpt.runs import processes, spawn
from pytest_ckpt.runs.forgetting import reset_signals
from pytest_ckpt.runs.processes import Children, Ended

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_ckpt.crashes.tracer import Tracer, Tracing

#: The line in the file of stderr after which the stacks of a job that ran out of time follow.
STACKS_FOLLOW: Final = "pytest-ckpt: the job was still running at its deadline; its Python threads stood here:"
#: Seconds for a job that ran out of time to write its stacks, and for killed processes to be gone.
STACKS_BOUND: Final = 0.5
KILL_BOUND: Final = 10.0
#: Seconds between looks at what announces itself only as a rule: the other side's death.
LOOK_EVERY: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a supervisor is to do; the arguments of `run_forked`."""

    body: Callable[[], int]
    timeout: float
    grace: float
    stdout: Path
    stderr: Path
    tracing: Tracing | None = None


def supervise(order: Order, channel: socket.socket, caller: int) -> NoReturn:
    """Be the supervisor: see the job to its end, report it and leave."""
    try:
        answer = _Supervision(order, channel, caller).run()
    except BaseException:  # noqa: BLE001 - the caller is told, whatever it is
        answer = {"error": f"The supervisor of a run failed:\n{traceback.format_exc()}"}
    channel.settimeout(KILL_BOUND)
    with suppress(OSError):  # the caller has hung up
        channel.sendall(json.dumps(answer).encode() + b"\n")
    os._exit(0)


class _Supervision:
    """The job as its supervisor sees it."""

    def __init__(self, order: Order, channel: socket.socket, caller: int) -> None:
        self._order = order
        self._channel = channel
        self._caller = caller
        self._hung_up = False
        gc.freeze()  # the garbage of pytest is not ours to finalise
        os.setsid()
        processes.become_subreaper()
        reset_signals()
        _open_standard_streams(order)
        ours, theirs = socket.socketpair() if order.tracing is not None else (None, None)
        self._job = self._start_job(theirs)
        keep = {fd.fileno() for fd in (channel, ours) if fd is not None}
        for fd in processes.open_descriptors():  # only now: the job may need what its fixtures have opened
            if fd > 2 and fd not in keep:  # noqa: PLR2004 - the standard streams
                with suppress(OSError):
                    os.close(fd)
        self._children = Children(self._job)
        self._tracer = self._start_tracer(ours)

    def _start_job(self, tracer: socket.socket | None) -> int:
        supervisor = os.getpid()
        job = os.fork()
        if job == 0:
            spawn.forked_job(partial(_body, self._order.body, tracer), supervisor)
        if tracer is not None:
            tracer.close()
        return job

    def _start_tracer(self, channel: socket.socket | None) -> Tracer | None:
        if channel is None or self._order.tracing is None:
            return None
        from pytest_ckpt.crashes.tracer import Tracer

        tracer = Tracer(self._order.tracing, channel)
        tracer.start()
        return tracer

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
            leftovers = self._children.kill_all(KILL_BOUND)
        if self._children.any_left or self._children.job_status is None:
            return {"error": self._immortal()}
        code = os.waitstatus_to_exitcode(self._children.job_status)
        ended = Ended.of(code, timed_out=timed_out, leftovers=leftovers, seconds=seconds)
        untraced = self._tracer.finish(KILL_BOUND) if self._tracer is not None else ""
        return replace(ended, untraced=untraced).to_json()

    def _until(self, condition: Callable[[], bool], seconds: float, look_every: float = LOOK_EVERY) -> None:
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
            self._until(self._stacks_are_written(), STACKS_BOUND, look_every=0.01)
        if not self._job_has_ended():
            os.kill(self._job, signal.SIGKILL)
            self._until(self._job_has_ended, KILL_BOUND)

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
            f"Processes of a job were still there {KILL_BOUND:.0f} s after SIGKILL: {left}. "
            "They run as another user, or are blocked in the kernel, such as by a file system that does not answer "
            "(see `ps -o pid,stat,wchan,args`). Mend that and end them by hand."
        )


def _open_standard_streams(order: Order) -> None:
    append = os.O_WRONLY | os.O_APPEND
    for fd, path, flags in ((0, os.devnull, os.O_RDONLY), (1, order.stdout, append), (2, order.stderr, append)):
        opened = os.open(path, flags)
        os.dup2(opened, fd)
        os.set_inheritable(fd, True)  # noqa: FBT003 - its signature; dup2 leaves alone what is already in place
        if opened != fd:
            os.close(opened)


def _body(body: Callable[[], int], tracer: socket.socket | None) -> int:
    processes.close_channels()
    if tracer is not None:
        from pytest_ckpt.crashes.stopping import be_traced

        be_traced(tracer)
    return body()
