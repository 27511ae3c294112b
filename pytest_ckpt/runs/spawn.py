"""The job's own side of a run: how a process becomes the job, and how a fresh interpreter does.

A forked process is a copy of pytest in the midst of a test. Before the job's code runs in it, what pytest has put in
place (signal handlers, captured streams, exit functions, hooks) gives way to what a program finds when it starts.
"""

from __future__ import annotations

import atexit
import faulthandler
import inspect
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

from pytest_ckpt.errors import HarnessError
from pytest_ckpt.runs import processes
from pytest_ckpt.runs.processes import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import ModuleType, TracebackType

#: Exit code of a job that an exception has ended; its traceback is in the file of stderr.
CRASHED: Final = 70
#: Makes a job write the Python stacks of its threads to stderr. A real-time signal where there are any: SIGUSR1 and
#: SIGUSR2 are what cluster schedulers send and training frameworks catch.
STACKS_SIGNAL: Final = signal.SIGRTMAX - 3 if sys.platform == "linux" else int(getattr(signal, "SIGUSR2", 0))
#: Lowest number of the descriptor for those stacks: a job that closes all it has won't get it again for a file.
_FAR_AWAY: Final = 200
#: What a Python program starts with; all other signals have their default action.
_FIRST_HANDLERS: Final[dict[str, Any]] = {
    "SIGINT": signal.default_int_handler,
    "SIGPIPE": signal.SIG_IGN,
    "SIGXFSZ": signal.SIG_IGN,
}


def reset_signals() -> None:
    """Give every signal the meaning it has when Python starts; those that are blocked stay so."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    for name, handler in _FIRST_HANDLERS.items():
        signal.signal(getattr(signal, name), handler)


def forked_job(body: Callable[[], int], supervisor: int) -> NoReturn:
    """Run the job in this process, just forked from `supervisor` with all signals blocked, and leave."""
    code = CRASHED
    try:
        old_streams = own_streams()
        processes.die_with(supervisor)
        os.setpgid(0, 0)  # kill(0, ...) must not reach the supervisor; no session: a job may want to lead a group
        _forget_pytest()
        show_stacks_on_signal()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = run(body)
        del old_streams
    except BaseException:  # noqa: BLE001 - nothing may get past this process's last line
        traceback.print_exc()
    finally:
        leave(code)


def _forget_pytest() -> None:
    """Put back what pytest and its plugins have put in place for themselves."""
    faulthandler.disable()
    reset_signals()
    _forget_exit_functions()
    _forget_log_handlers()
    replace_debugger(_no_terminal)
    sys.excepthook = sys.__excepthook__
    sys.unraisablehook = sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__


def _forget_log_handlers() -> None:
    """Take away the handlers of pytest, and what others hold of its captured streams, where nobody would find the records."""
    for handler in list(logging.getLogger().handlers):
        if _is_of_pytest(handler) and not hasattr(handler, "records"):  # those stay in memory, for caplog
            logging.getLogger().removeHandler(handler)
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]  # noqa: SLF001 - each logger has its own
        handler = reference()
        if isinstance(handler, logging.StreamHandler) and _is_of_pytest(handler.stream):
            handler.stream = sys.stderr


def replace_debugger(action: Callable[..., None]) -> None:
    """Have something else done at a breakpoint than to start the debugger, which would ask the terminal of pytest."""
    sys.breakpointhook = action
    for module in (sys.modules.get("pdb"), sys.modules.get("pytest")):
        if module is not None:
            vars(module)["set_trace"] = action


def _no_terminal(*_: object, **__: object) -> None:
    message = "a debugger has no terminal in the process of a job; pytest --pdb calls the job in its own process first"
    raise HarnessError(message)


def _is_of_pytest(value: object) -> bool:
    return type(value).__module__.startswith("_pytest.")


def _forget_exit_functions() -> None:
    """Forget what pytest would do at its exit, such as to delete files that it still uses.

    Of multiprocessing and executors, only the part that concerns the job's own processes and threads is kept.
    """
    atexit._clear()  # noqa: SLF001 - there is no other way
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util and process:
        end, children = util._exit_function, process.active_children  # noqa: SLF001 - as above
        theirs = frozenset(children())  # those of pytest, which it would take for ours and kill
        atexit.register(end, active_children=lambda: set(children()) - theirs)
    for name, waited_for in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        getattr(sys.modules.get(f"concurrent.futures.{name}"), waited_for, {}).clear()  # one of them may be this thread


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


def dump(function: Callable[..., int], args: tuple[object, ...]) -> bytes:
    """Return a call as a payload for a fresh interpreter, with what it needs to find the same modules.

    Raises:
        HarnessError: something in it can't be pickled; the message names it.
    """
    import cloudpickle  # type: ignore[import-untyped]

    known = cloudpickle.list_registry_pickle_by_value()
    lost = [module for name, module in list(sys.modules.items()) if name not in known and _is_only_here(name, module)]
    for module in lost:
        cloudpickle.register_pickle_by_value(module)
    try:
        call = cloudpickle.dumps((function, args))
    except Exception as error:  # whatever a __reduce__ of the user's raises
        raise HarnessError(_why_not(function, args, error)) from error
    finally:
        for module in lost:
            cloudpickle.unregister_pickle_by_value(module)
    return pickle.dumps({"path": sys.path, "argv": sys.argv, "call": call})


def _is_only_here(name: str, module: ModuleType) -> bool:
    """Say whether a fresh interpreter would not find a module: pytest imports tests from where no import looks."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or not type(spec.loader).__module__.startswith("_pytest."):
        return False
    folders: Sequence[str] | None = None
    found = None
    for depth, _ in enumerate(parts := name.split("."), start=1):
        found = PathFinder.find_spec(".".join(parts[:depth]), folders)
        folders = [] if found is None else found.submodule_search_locations or []
    return found is None or found.origin != spec.origin


def _why_not(function: Callable[..., int], args: tuple[object, ...], error: Exception) -> str:
    values = {f"argument {index}": value for index, value in enumerate(args)} | _parts(function)
    names = [name for part, value in values.items() for name in _culprits(part, value)]
    return (
        f"The job {getattr(function, '__qualname__', function)} can't be sent to a fresh process, because "
        f"{' and '.join(names) or 'something in it'} can't be pickled ({type(error).__name__}: {error}). "
        "Create it inside the job, or run the job in a forked process."
    )


def _culprits(name: str, value: object, depth: int = 5) -> Iterator[str]:
    """Yield the innermost values that can't be pickled, each by its name and type."""
    if _pickles(value):
        return
    inner = (
        [found for part, other in _parts(value).items() for found in _culprits(part, other, depth - 1)] if depth else []
    )
    yield from inner or [f"{name} (a {type(value).__qualname__})"]


def _parts(value: object) -> dict[str, object]:
    """Return what a value consists of, by names that whoever wrote the job knows."""
    if isinstance(value, partial):
        numbered = {f"its argument {index}": part for index, part in enumerate(value.args)}
        return numbered | {f"its argument {key!r}": part for key, part in value.keywords.items()} | _parts(value.func)
    if inspect.isfunction(value):
        used = inspect.getclosurevars(value)
        return {f"its variable {name!r}": part for name, part in {**used.globals, **used.nonlocals}.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f"its {field.name}": getattr(value, field.name) for field in fields(value)}
    return {}


def _pickles(value: object) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


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
    replace_debugger(_no_terminal)
    show_stacks_on_signal()
    leave(run(lambda: _call(Path(payload).read_bytes())))


def _call(payload: bytes) -> int:
    # Both were pickled by the very process that started this one.
    content = pickle.loads(payload)  # noqa: S301
    sys.path[:], sys.argv[:] = content["path"], content["argv"]
    function, args = pickle.loads(content["call"])  # noqa: S301
    code: int = function(*args)
    return code
