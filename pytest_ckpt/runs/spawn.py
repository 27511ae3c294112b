"""The job's own side of a run: how a process becomes the job, and how a fresh interpreter does.

A forked process is a copy of pytest in the midst of a test. Before the job's code runs in it, what pytest has put in
place (signal handlers, captured streams, exit functions, hooks) gives way to what a program finds when it starts.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from pytest_ckpt.runs import processes
from pytest_ckpt.runs.forgetting import forget_pytest, no_terminal, replace_debugger
from pytest_ckpt.runs.processes import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

#: Exit code of a job that an exception has ended; its traceback is in the file of stderr.
CRASHED: Final = 70
#: Makes a job write the Python stacks of its threads to stderr. A real-time signal where there are any: SIGUSR1 and
#: SIGUSR2 are what cluster schedulers send and training frameworks catch.
STACKS_SIGNAL: Final = signal.SIGRTMAX - 3 if sys.platform == "linux" else int(getattr(signal, "SIGUSR2", 0))
#: Lowest number of the descriptor for those stacks: a job that closes all it has won't get it again for a file.
_FAR_AWAY: Final = 200


def forked_job(body: Callable[[], int], supervisor: int) -> NoReturn:
    """Run the job in this process, just forked from `supervisor` with all signals blocked, and leave."""
    code = CRASHED
    try:
        old_streams = own_streams()
        processes.die_with(supervisor)
        os.setpgid(0, 0)  # kill(0, ...) must not reach the supervisor; no session: a job may want to lead a group
        forget_pytest()
        show_stacks_on_signal()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = run(body)
        del old_streams
    except BaseException:  # noqa: BLE001 - nothing may get past this process's last line
        traceback.print_exc()
    finally:
        leave(code)


def own_streams() -> object:
    """Open the standard streams anew over descriptors 0, 1 and 2; return the old, which may hold text of pytest's."""
    old = [(name, fd, getattr(sys, name)) for fd, name in enumerate(("stdin", "stdout", "stderr"))]
    for name, fd, stream in old:
        if fd > 0:
            _redirect(stream, fd)
        mode = "w" if fd > 0 else "r"
        fresh = open(fd, mode, buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, fresh)
        setattr(sys, f"__{name}__", fresh)
    return old


def _redirect(stream: TextIO, fd: int) -> None:
    """Let a stream that others still hold, such as a logging handler, write to our file too."""
    with suppress(AttributeError, OSError, ValueError):  # None, closed, or only in memory
        number = stream.fileno()
        if number > 2:  # noqa: PLR2004 - not a standard one
            os.dup2(fd, number, inheritable=False)


def show_stacks_on_signal() -> None:
    """Have faulthandler write all Python stacks to stderr on `STACKS_SIGNAL` and when the process crashes."""
    fd = 2
    if sys.platform != "win32":
        import fcntl

        with suppress(OSError):  # a low limit on descriptors
            fd = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, _FAR_AWAY)
        faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True)
    faulthandler.enable(file=fd)


def run(body: Callable[[], int]) -> int:
    """Run the job as the interpreter runs a program, to the end of its threads; return its exit code."""
    code = _outcome(body)
    try:
        _await_threads()
        atexit._run_exitfuncs()  # noqa: SLF001 - only the job's own are left
    except BaseException:  # noqa: BLE001 - whatever it is, the process is about to end
        traceback.print_exc()
        code = code or CRASHED
    return code


def _outcome(body: Callable[[], int]) -> int:
    try:
        code = body()
    except SystemExit as end:
        return _exit_code(end)
    except BaseException as error:  # noqa: BLE001 - torch's CheckpointException is not an Exception
        traceback.print_exception(type(error), error, _from_job_on(error.__traceback__))
        return CRASHED
    if code not in range(256):
        print(f"A job's body must return an exit code from 0 to 255, and this one returned {code!r}.", file=sys.stderr)  # noqa: T201
        return CRASHED
    return code


def _from_job_on(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames that led to the job, as long as there are others."""
    while trace and trace.tb_next and Path(trace.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
        trace = trace.tb_next
    return trace


def _exit_code(end: SystemExit) -> int:
    """Return what the interpreter would exit with."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    with suppress(OSError, ValueError):
        print(end.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1


def _await_threads() -> None:
    """Wait for threads that are no daemons, among them executors that still save a checkpoint."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - multiprocessing ends its children so too
    except AssertionError:  # Python < 3.12, forked in a thread that `threading` did not start
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.current_thread():
                thread.join()


def leave(code: int) -> NoReturn:
    """End this process here and now, with nothing written lost and nothing of pytest's exit machinery run."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # the job may have replaced or closed it
                stream.flush()
    finally:
        os._exit(code)


def command(payload: Path) -> list[str]:
    """Return the command that makes a fresh interpreter run a payload, wherever this package lies."""
    package = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {package!r}); from pytest_ckpt.runs.spawn import main; main(sys.argv[1])"
    return [sys.executable, "-c", code, str(payload)]


def replace_process(words: list[str], cwd: Path | None, env: Mapping[str, str]) -> NoReturn:
    """Become another program, which inherits the standard streams and nothing else."""
    if cwd is not None:
        os.chdir(cwd)
    os.closerange(3, max(processes.open_descriptors(), default=2) + 1)
    os.execve(words[0], words, env)  # noqa: S606 - there is no shell to be had here


def run_in_group(  # noqa: PLR0913 - what a process can be given
    words: list[str],
    *,
    cwd: Path | None,
    env: Mapping[str, str],
    timeout: float,
    stdout: Path,
    stderr: Path,
    grace: float,
) -> Ended:
    """Run a program where there is no supervisor, off Linux: only its process group is killed, and nobody is named."""
    started = time.monotonic()
    with stdout.open("wb"), stderr.open("wb"), stdout.open("ab") as out, stderr.open("ab") as err:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=env, start_new_session=True
        )
        try:
            timed_out = not _ends_within(process, timeout)
            if timed_out and STACKS_SIGNAL:
                process.send_signal(STACKS_SIGNAL)
                _ends_within(process, 0.5)
        finally:
            process.kill()
            code = process.wait()
            seconds = time.monotonic() - started
            if sys.platform != "win32":
                _end_group(process.pid, grace)
    return Ended.of(code, timed_out=timed_out, leftovers=(), seconds=seconds)


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _end_group(group: int, grace: float) -> None:
    deadline = time.monotonic() + grace
    with suppress(ProcessLookupError, PermissionError):  # none is left, or only zombies
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)


def main(payload: str) -> NoReturn:
    """Run a payload in this fresh interpreter; called by `command`."""
    own_streams()
    replace_debugger(no_terminal)
    show_stacks_on_signal()
    leave(run(lambda: _call(Path(payload).read_bytes())))


def _call(payload: bytes) -> int:
    # Both were pickled by the very process that started this one.
    content = pickle.loads(payload)  # noqa: S301
    sys.path[:], sys.argv[:] = content["path"], content["argv"]
    function, args = pickle.loads(content["call"])  # noqa: S301
    code: int = function(*args)
    return code
