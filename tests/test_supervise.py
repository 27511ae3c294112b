"""One run of a job under its supervisor: how it ended is told truthfully, and nothing of it is left."""

from __future__ import annotations

import _thread
import atexit
import ctypes
import faulthandler
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_ckpt.errors import HarnessError, InvalidArgument
from pytest_ckpt.runs import processes, spawn, supervise
from pytest_ckpt.runs.supervise import STACKS_FOLLOW, Ended, run_forked, run_spawned

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="supervisors need Linux")

ROOT: Final = Path(supervise.__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs jobs and reads what they wrote."""

    folder: Path

    def __call__(self, body: Callable[[], int], *, timeout: float = 20, grace: float = 0.5) -> Ended:
        return run_forked(body, timeout=timeout, grace=grace, stdout=self.stdout_file, stderr=self.stderr_file)

    def spawned(self, function: Callable[..., int], *args: object, timeout: float = 20, **options: Any) -> Ended:
        return run_spawned(
            function, args, timeout=timeout, stdout=self.stdout_file, stderr=self.stderr_file, **options
        )

    @property
    def stdout_file(self) -> Path:
        return self.folder / "stdout.txt"

    @property
    def stderr_file(self) -> Path:
        return self.folder / "stderr.txt"

    @property
    def stdout(self) -> str:
        return self.stdout_file.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Run a job whose output lies in the test's folder."""
    return Runner(folder=tmp_path)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until something holds; say whether it did in time."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def is_gone(pid: int) -> bool:
    """Say whether a process has ended, whoever has to collect it."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    return True


def pids_in(folder: Path) -> dict[str, int]:
    """Return the process ids that a job has noted under a name each."""
    return {file.stem: int(file.read_text()) for file in folder.glob("*.pid") if file.read_text()}


def note(folder: Path, name: str, pid: int | None = None) -> None:
    """Note a process id for `pids_in`."""
    (folder / f"{name}.pid").write_text(str(os.getpid() if pid is None else pid))


def start_daemon(folder: Path, name: str) -> None:
    """Start a process as daemons do: forked twice, in a session of its own, ignoring what asks it to end."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            note(folder, name)
            os.write(write_end, b"!")
            os.execvp("sleep", ["sleep", "1001"])
        os._exit(0)
    os.wait()
    os.read(read_end, 1)


def hang() -> int:
    """Never return."""
    time.sleep(1000)
    return 0


# ------------------------------------------------------------------------------------------------------- how a job ends


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_what_the_body_returns(run: Runner, code: int) -> None:
    """A job that ends by itself is told by its exit code, and nothing else."""
    ended = run(lambda: code)
    assert Ended(exit_code=code, seconds=ended.seconds) == ended
    assert ("", "") == (run.stdout, run.stderr)


def test_os_exit_in_the_job_is_its_exit_code(run: Runner) -> None:
    """A job may leave by `os._exit`, past everything."""
    ended = run(lambda: os._exit(3))
    assert (3, None) == (ended.exit_code, ended.signal)


def test_an_exception_is_exit_code_70_with_its_traceback_in_stderr(run: Runner) -> None:
    """What escapes the job is printed from the job's own frame on."""

    def body() -> int:
        message = "no such layer"
        raise LookupError(message)

    assert spawn.CRASHED == run(body).exit_code
    assert run.stderr.startswith('Traceback (most recent call last):\n  File "' + __file__)
    assert run.stderr.endswith("LookupError: no such layer\n")


@pytest.mark.parametrize(("code", "expected", "text"), [(None, 0, ""), (4, 4, ""), ("no data", 1, "no data\n")])
def test_sys_exit_means_what_it_means_to_a_program(run: Runner, code: int | str | None, expected: int, text: str) -> None:
    """`sys.exit` ends the job as it would end the interpreter."""
    assert expected == run(lambda: sys.exit(code)).exit_code
    assert text == run.stderr


@pytest.mark.parametrize("value", [None, 256, -1, "0"])
def test_a_return_value_that_is_no_exit_code_is_no_success(run: Runner, value: Any) -> None:
    """The kernel would cut 256 to 0; that must not look like success."""
    assert spawn.CRASHED == run(lambda: value).exit_code
    assert repr(value) in run.stderr


def test_a_signal_is_told_apart_from_an_exit_code(run: Runner) -> None:
    """A job killed from outside has no exit code, and was not killed for its time."""
    ended = run(lambda: os.kill(os.getpid(), signal.SIGKILL) or 0)
    assert (None, signal.SIGKILL, False) == (ended.exit_code, ended.signal, ended.timed_out)


def test_a_crash_in_native_code_says_where(run: Runner) -> None:
    """A segmentation fault ends the job by SIGSEGV, after Python's stack was written to stderr."""
    ended = run(lambda: ctypes.string_at(0) and 0)
    assert (None, signal.SIGSEGV) == (ended.exit_code, ended.signal)
    assert "Segmentation fault" in run.stderr
    assert "string_at" in run.stderr


def test_a_thread_that_still_saves_is_awaited(run: Runner) -> None:
    """Threads and executors end as in a program, so that a save in the background gets finished."""

    def save(name: str) -> None:
        time.sleep(0.1)
        (run.folder / name).touch()

    def body() -> int:
        threading.Thread(target=save, args=("thread",)).start()
        ThreadPoolExecutor().submit(save, "executor")
        return 0

    assert 0 == run(body).exit_code
    assert (run.folder / "thread").exists()
    assert (run.folder / "executor").exists()


def test_exit_functions_of_the_job_run_and_those_of_pytest_do_not(run: Runner) -> None:
    """An exit function runs in the process that registered it."""

    def body() -> int:
        atexit.register(print, "job")
        return 0

    atexit.register(print, "pytest")
    try:
        run(body)
    finally:
        atexit.unregister(print)
    assert "job\n" == run.stdout


# ------------------------------------------------------------------------------------------------------------- deadline


def test_a_job_that_hangs_is_killed_and_says_where_it_stood(run: Runner) -> None:
    """At the deadline all Python threads write their stacks before the job is killed."""

    def wait_for_a_lock_that_nobody_frees() -> int:
        threading.Thread(target=hang, daemon=True).start()
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
        return 0

    ended = run(wait_for_a_lock_that_nobody_frees, timeout=0.3)
    assert (None, signal.SIGKILL, True) == (ended.exit_code, ended.signal, ended.timed_out)
    assert 0.3 <= ended.seconds < 3
    stacks = run.stderr.partition(STACKS_FOLLOW)[2]
    assert "in wait_for_a_lock_that_nobody_frees" in stacks
    assert "in hang" in stacks


def test_a_busy_job_that_ignores_signals_is_killed_in_time(run: Runner) -> None:
    """Neither a loop nor ignored and blocked signals keep a job alive."""

    def body() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            pass

    ended = run(body, timeout=0.2)
    assert (signal.SIGKILL, True) == (ended.signal, ended.timed_out)
    assert ended.seconds < 3


def test_a_job_in_uninterruptible_sleep_is_killed(run: Runner) -> None:
    """A parent in vfork sleeps uninterruptibly until its child has ended; its child is killed as well."""

    def body() -> int:
        if ctypes.PyDLL(None).vfork() == 0:
            note(run.folder, "child")
            os.execvp("sh", ["sh", "-c", "exec sleep 1002"])
        return 0

    def never_execs() -> int:
        ctypes.PyDLL(None).vfork()
        note(run.folder, "child")
        return hang()

    del body
    ended = run(never_execs, timeout=0.2)
    assert (signal.SIGKILL, True) == (ended.signal, ended.timed_out)
    assert is_gone(pids_in(run.folder)["child"])


def test_a_stopped_job_is_killed_and_says_where_it_stood(run: Runner) -> None:
    """A job that was stopped is woken for its stack."""

    def stop() -> int:
        os.kill(os.getpid(), signal.SIGSTOP)
        return hang()

    ended = run(stop, timeout=0.2)
    assert (signal.SIGKILL, True) == (ended.signal, ended.timed_out)
    assert "in stop" in run.stderr


def test_a_job_that_became_another_program_is_not_asked_for_stacks(run: Runner) -> None:
    """The signal for stacks would end a program that does not catch it, and hide that it was killed."""
    ended = run(lambda: os.execvp("sleep", ["sleep", "1003"]), timeout=0.2)
    assert (signal.SIGKILL, True) == (ended.signal, ended.timed_out)
    assert "" == run.stderr


# ---------------------------------------------------------------------------------------------------- what a job leaves


def test_processes_in_sessions_of_their_own_are_killed_and_named(run: Runner) -> None:
    """Neither a new session nor a second fork nor being stopped hides a process."""

    def body() -> int:
        child = subprocess.Popen(["sleep", "1004"], start_new_session=True)
        note(run.folder, "session", child.pid)
        start_daemon(run.folder, "daemon")
        stopped = subprocess.Popen(["sleep", "1005"])
        note(run.folder, "stopped", stopped.pid)
        stopped.send_signal(signal.SIGSTOP)
        return 0

    ended = run(body, grace=0.1)
    pids = pids_in(run.folder)
    assert {pids["session"]: "sleep 1004", pids["daemon"]: "sleep 1001", pids["stopped"]: "sleep 1005"} == {
        leftover.pid: leftover.command for leftover in ended.leftovers
    }
    assert all(is_gone(pid) for pid in pids.values())
    assert 0 == ended.exit_code


def test_a_tree_of_processes_is_killed_to_its_leaves(run: Runner) -> None:
    """A process whose parents are killed one after the other is not lost on the way."""
    shell = "sh -c 'sh -c \"sleep 1006; true\"; true'; true"
    ended = run(lambda: bool(subprocess.Popen(["sh", "-c", shell])) - 1, grace=0.1)
    assert "sleep 1006" in [leftover.command for leftover in ended.leftovers]
    assert 4 == len(ended.leftovers)
    assert all(is_gone(leftover.pid) for leftover in ended.leftovers)


def test_a_process_that_is_about_to_end_is_no_leftover(run: Runner) -> None:
    """What ends by itself within the grace is not held against the job."""
    ended = run(lambda: bool(subprocess.Popen(["sleep", "0.1"])) - 1, grace=5)
    assert () == ended.leftovers


def test_the_end_of_an_orphan_is_noticed_while_the_job_runs(run: Runner) -> None:
    """A daemon that ended is no zombie: a job that waits for its end by looking for its process would never see it."""

    def body() -> int:
        start_daemon(run.folder, "daemon")
        daemon = pids_in(run.folder)["daemon"]
        os.kill(daemon, signal.SIGKILL)
        return 0 if eventually(lambda: not Path(f"/proc/{daemon}").exists()) else 1

    assert 0 == run(body).exit_code


def test_daemonic_children_of_multiprocessing_end_with_the_job(run: Runner) -> None:
    """They are ended as at the end of a program and are no leftovers; a child of pytest's own is let alone."""
    context = multiprocessing.get_context("fork")
    ours = context.Process(target=hang, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        ours.start()

    def body() -> int:
        context.Process(target=hang, daemon=True).start()
        context.Process(target=print, args=("awaited",)).start()
        return 0

    ended = run(body, grace=0.1)
    survived = ours.is_alive()
    ours.kill()
    ours.join()
    assert (0, ()) == (ended.exit_code, ended.leftovers)
    assert "awaited\n" == run.stdout
    assert survived


def test_what_does_not_die_is_an_error(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that SIGKILL does not end in time is named, instead of a report that says all is well."""
    monkeypatch.setattr(supervise, "_KILL_BOUND", 0.0)
    with pytest.raises(HarnessError, match=r"still there 0 s after SIGKILL: \d+ \(sleep 1007\)"):
        run(lambda: bool(subprocess.Popen(["sleep", "1007"])) - 1, grace=0)
    for pid in (pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if processes.command_of(pid) == "sleep 1007"):
        os.kill(pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------------------------ the job's world


def test_output_is_complete_and_any_text_can_be_printed(run: Runner) -> None:
    """Much output, text without a valid encoding and an unfinished last line all arrive."""

    def body() -> int:
        print("x" * 5_000_000)
        print("weights \N{GREEK SMALL LETTER THETA} \udcff")
        print("no newline", end="")
        os.write(2, b"raw")
        print("line", file=sys.stderr)
        return 0

    assert 0 == run(body).exit_code
    assert "x" * 5_000_000 + "\nweights \N{GREEK SMALL LETTER THETA} \\udcff\nno newline" == run.stdout
    assert "rawline\n" == run.stderr


def test_one_file_can_take_both_streams(run: Runner) -> None:
    """Neither stream writes over the other."""

    def body() -> int:
        print("out")
        print("err", file=sys.stderr)
        print("out again")
        return 0

    run_forked(body, timeout=20, stdout=run.stdout_file, stderr=run.stdout_file)
    assert "out\nerr\nout again\n" == run.stdout


def test_a_logging_handler_of_before_the_fork_writes_to_the_jobs_file(run: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    """A handler that holds pytest's captured stream writes to the job's file, and nothing to pytest's."""
    handler = logging.StreamHandler(sys.stderr)
    print("of pytest", file=sys.stderr, end="")
    run(lambda: bool(handler.emit(logging.makeLogRecord({"msg": "from the job"}))) + 0)
    assert "from the job\n" == run.stderr
    assert "of pytest" == capfd.readouterr().err


def test_a_job_that_closes_every_descriptor_is_still_told_truthfully(run: Runner) -> None:
    """A daemon's first act does not cut the supervisor off."""

    def body() -> int:
        os.closerange(0, 1000)
        return 5

    assert 5 == run(body).exit_code


def test_signals_mean_what_they_mean_to_a_program(run: Runner) -> None:
    """Handlers, the mask and the wakeup descriptor of pytest do not reach the job."""

    def body() -> int:
        print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN)
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1))
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    previous = signal.signal(signal.SIGTERM, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        ended = run(body)
        assert {signal.SIGUSR1} | mask == signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert "True True\nTrue\nset() -1\n" == run.stdout
    assert spawn.CRASHED == ended.exit_code
    assert run.stderr.endswith("KeyboardInterrupt\n")


def test_exceptions_in_threads_of_the_job_are_printed(run: Runner) -> None:
    """pytest's hooks, which would keep them for a report of their own, do not reach the job."""

    def body() -> int:
        threading.Thread(target=lambda: 1 / 0).start()
        return 0

    run(body)
    assert "ZeroDivisionError" in run.stderr


def test_a_job_may_signal_its_own_process_group(run: Runner) -> None:
    """Launchers make themselves group leaders and kill their group at the end; that reaches no supervisor."""

    def body() -> int:
        os.setpgrp()
        os.kill(0, signal.SIGKILL)
        return 0

    assert signal.SIGKILL == run(body).signal


def test_the_job_is_in_no_session_of_pytest(run: Runner) -> None:
    """Ctrl-C in a terminal goes to pytest alone."""
    run(lambda: print(os.getsid(0), os.getpgid(0), os.getpid()) or 0)
    session, group, pid = map(int, run.stdout.split())
    assert os.getsid(0) != session
    assert pid == group


def test_the_job_holds_no_channel_and_what_its_fixtures_have_opened(run: Runner) -> None:
    """Descriptors of pytest are inherited, those between pytest and supervisors are not."""
    with (run.folder / "data").open("wb", buffering=0) as data:

        def body() -> int:
            sockets = [fd for fd in processes.open_descriptors() if "socket" in _target(fd)]
            print([fd for fd in sockets if processes._name_of(fd).startswith(processes._CHANNEL_NAME)])
            data.write(b"batch")
            return 0

        ended = concurrently(lambda: run(body), lambda: Runner(folder=_sub(run, "other"))(lambda: time.sleep(0.2) or 0))[0]
    assert 0 == ended.exit_code
    assert "[]\n" == run.stdout
    assert b"batch" == (run.folder / "data").read_bytes()


def _target(fd: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return ""


def _sub(run: Runner, name: str) -> Path:
    folder = run.folder / name
    folder.mkdir()
    return folder


def concurrently(*calls: Callable[[], Ended]) -> list[Ended]:
    """Make calls in a thread each, at a time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
