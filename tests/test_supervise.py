"""One run of a job under its supervisor: how it ended is told truthfully, and nothing of it is left."""

# ruff: noqa: S606, S607, T201 - jobs print, and start programs that the shell's path finds

from __future__ import annotations

import _thread
import atexit
import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from pytest_ckpt.errors import HarnessError, InvalidArgument
from pytest_ckpt.runs import processes, spawn, supervision
from pytest_ckpt.runs.supervise import STACKS_FOLLOW, Ended, run_forked, run_spawned

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="supervisors need Linux")

ROOT: Final = Path(supervision.__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs jobs, and reads what they wrote."""

    folder: Path

    def __call__(self, body: Callable[[], int], *, timeout: float = 20, grace: float = 0.5) -> Ended:
        """Run a job in a forked process."""
        return run_forked(body, timeout=timeout, grace=grace, stdout=self.stdout_file, stderr=self.stderr_file)

    def spawned(self, function: Callable[..., int], *args: object, **options: Any) -> Ended:  # noqa: ANN401 - passed on
        """Run a job in a fresh interpreter."""
        options = {"timeout": 20, "stdout": self.stdout_file, "stderr": self.stderr_file, **options}
        return run_spawned(function, args, **options)

    @property
    def stdout_file(self) -> Path:
        """The file that takes the job's standard output."""
        return self.folder / "stdout.txt"

    @property
    def stderr_file(self) -> Path:
        """The file that takes what the job says of errors."""
        return self.folder / "stderr.txt"

    @property
    def stdout(self) -> str:
        """What the last job wrote."""
        return self.stdout_file.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What the last job said of errors."""
        return self.stderr_file.read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Run a job whose output lies in the test's folder."""
    return Runner(folder=tmp_path)


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Run a second job beside it."""
    return Runner(folder=tmp_path_factory.mktemp("other"))


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


def calling(function: Callable[..., object], *args: object) -> int:
    """Call something, and be a job that went well."""
    function(*args)
    return 0


def starting(*words: str) -> Callable[[], int]:
    """Return a job that starts a program and does not wait for it."""

    def body() -> int:
        subprocess.Popen(words)
        return 0

    return body


def concurrently(*calls: Callable[[], Ended]) -> list[Ended]:
    """Make calls in a thread each, at a time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


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
def test_sys_exit_means_what_it_means_to_a_program(
    run: Runner, code: int | str | None, expected: int, text: str
) -> None:
    """`sys.exit` ends the job as it would end the interpreter."""
    assert expected == run(lambda: sys.exit(code)).exit_code
    assert text == run.stderr


@pytest.mark.parametrize("value", [None, 256, -1, "0"])
def test_a_return_value_that_is_no_exit_code_is_no_success(run: Runner, value: object) -> None:
    """The kernel would cut 256 to 0; that must not look like success."""
    assert spawn.CRASHED == run(lambda: cast("int", value)).exit_code
    assert repr(value) in run.stderr


def test_a_signal_is_told_apart_from_an_exit_code(run: Runner) -> None:
    """A job killed from outside has no exit code, and was not killed for its time."""
    ended = run(lambda: calling(os.kill, os.getpid(), signal.SIGKILL))
    assert (None, signal.SIGKILL, False) == (ended.exit_code, ended.signal, ended.timed_out)


def test_a_crash_in_native_code_says_where(run: Runner) -> None:
    """A segmentation fault ends the job by SIGSEGV, after Python's stack was written to stderr."""
    ended = run(lambda: calling(ctypes.string_at, 0))
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

    def never_execs() -> int:
        ctypes.PyDLL(None).vfork()
        note(run.folder, "child")
        return hang()

    ended = run(never_execs, timeout=0.2, grace=0)
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
    ended = run(starting("sh", "-c", shell), grace=0.1)
    assert "sleep 1006" in [leftover.command for leftover in ended.leftovers]
    assert 4 == len(ended.leftovers)
    assert all(is_gone(leftover.pid) for leftover in ended.leftovers)


def test_a_process_that_is_about_to_end_is_no_leftover(run: Runner) -> None:
    """What ends by itself within the grace is not held against the job."""
    ended = run(starting("sleep", "0.1"), grace=5)
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
    monkeypatch.setattr(supervision, "KILL_BOUND", 0.0)
    with pytest.raises(HarnessError, match=r"still there 0 s after SIGKILL: \d+ \(sleep 1007\)"):
        run(starting("sleep", "1007"), grace=0)
    for pid in processes.descendants(1):
        if processes.command_of(pid) == "sleep 1007":
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


def test_a_logging_handler_of_before_the_fork_writes_to_the_jobs_file(
    run: Runner, capfd: pytest.CaptureFixture[str]
) -> None:
    """A handler that holds pytest's captured stream writes to the job's file, and nothing to pytest's."""
    handler = logging.StreamHandler(sys.stderr)
    print("of pytest", file=sys.stderr, end="")
    run(lambda: calling(handler.emit, logging.makeLogRecord({"msg": "from the job"})))
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
    run(lambda: calling(print, os.getsid(0), os.getpgid(0), os.getpid()))
    session, group, pid = map(int, run.stdout.split())
    assert os.getsid(0) != session
    assert pid == group


def test_the_job_holds_no_channel_but_what_its_fixtures_have_opened(run: Runner, other: Runner) -> None:
    """Descriptors of pytest are inherited; those between pytest and supervisors, also of other runs, are not."""
    with (run.folder / "data").open("wb", buffering=0) as data:

        def body() -> int:
            note(run.folder, "started")
            print([fd for fd in processes.open_descriptors() if is_channel(fd)])
            data.write(b"batch")
            return 0

        def meanwhile() -> int:
            return 0 if eventually(lambda: "started" in pids_in(run.folder)) else 1

        both = concurrently(lambda: other(meanwhile), lambda: run(body))
    assert [0, 0] == [ended.exit_code for ended in both]
    assert "[]\n" == run.stdout
    assert b"batch" == (run.folder / "data").read_bytes()


def is_channel(fd: int) -> bool:
    """Say whether a descriptor of this process leads to a supervisor or to whoever asked for it."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as opened:
        return b"pytest-ckpt" in bytes(opened.getsockname() or b"")
    return False


def test_standard_descriptors_that_pytest_has_closed_do_no_harm(run: Runner) -> None:
    """A service may start pytest without any of the three; the job has them all the same."""
    program = f"""
import os
os.closerange(0, 3)
{CALLER}
os._exit(run(lambda: print("out") or 6).exit_code)
"""
    assert 6 == subprocess.run([sys.executable, "-c", program, run.folder], check=False).returncode
    assert "out\n" == run.stdout


# ---------------------------------------------------------------------------------------------------------- the callers

#: Defines, for a program of its own that gets the folder as argument, `run` and `tree`, a job that starts others.
CALLER: Final = f"""
import os, sys, time, subprocess
from functools import partial
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from pytest_ckpt.runs.supervise import run_forked
folder = Path(sys.argv[1])
run = partial(run_forked, timeout=60, stdout=folder / "stdout.txt", stderr=folder / "stderr.txt")
def tree():
    for name in ("one", "two"):
        child = subprocess.Popen(["sleep", "1010"], start_new_session=True)
        (folder / f"{{name}}.pid").write_text(str(child.pid))
    (folder / "supervisor.pid").write_text(str(os.getppid()))
    (folder / "job.pid").write_text(str(os.getpid()))
    time.sleep(1000)
"""


def start_caller(folder: Path, program: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a program that runs `tree`; return it, and the processes below it."""
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER + program, folder], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert eventually(lambda: len(pids_in(folder)) == 4)
    return caller, list(pids_in(folder).values())


def test_nothing_survives_the_death_of_pytest(tmp_path: Path) -> None:
    """When the process that asked for a run is killed, the job and all it started vanish."""
    caller, pids = start_caller(tmp_path, "run(tree)")
    with caller:
        caller.kill()
    assert eventually(lambda: all(map(is_gone, pids)))


def test_the_death_of_pytest_is_noticed_though_another_process_holds_its_end_of_the_channel(tmp_path: Path) -> None:
    """A process that pytest has forked in another thread inherits the channel and keeps it open."""
    program = """
import threading
def fork():
    while not (folder / "job.pid").exists():
        time.sleep(0.01)
    if os.fork() == 0:
        (folder / "holder").write_text(str(os.getpid()))
        time.sleep(20)
threading.Thread(target=fork, daemon=True).start()
run(tree)
"""
    caller, pids = start_caller(tmp_path, program)
    holder = tmp_path / "holder"
    assert eventually(lambda: holder.exists() and holder.read_text() != "")
    with caller:
        caller.kill()
        caller.wait()
    gone = eventually(lambda: all(map(is_gone, pids)))
    os.kill(int(holder.read_text()), signal.SIGKILL)
    assert gone


def test_ctrl_c_ends_the_run_before_it_is_raised(tmp_path: Path) -> None:
    """KeyboardInterrupt comes out of the call when nothing of the job is left."""
    program = """
try:
    run(tree)
except KeyboardInterrupt:
    gone = [not Path(f"/proc/{file.read_text()}").exists() for file in folder.glob("*.pid")]
    print(gone, flush=True)
"""
    caller, _ = start_caller(tmp_path, program)
    with caller:
        caller.send_signal(signal.SIGINT)
        output, _ = caller.communicate(timeout=10)
    assert "[True, True, True, True]\n" == output


def test_the_loss_of_the_supervisor_is_an_error_and_ends_the_job(run: Runner) -> None:
    """A supervisor killed by the kernel, or by the job itself, takes the job with it and is not taken for its end."""

    def body() -> int:
        note(run.folder, "job")
        os.kill(os.getppid(), signal.SIGKILL)
        return hang()

    with pytest.raises(HarnessError, match=r"ended with -9 \(below 0: a signal\) before it could report"):
        run(body)
    assert eventually(lambda: is_gone(pids_in(run.folder)["job"]))


def test_many_runs_leave_no_descriptor_and_no_zombie(run: Runner) -> None:
    """A session of thousands of runs costs what one costs."""
    run(lambda: 0)
    before = processes.open_descriptors(), zombies()
    assert [0] * 50 == [run(lambda: 0).exit_code for _ in range(50)]
    assert before == (processes.open_descriptors(), zombies())


def zombies() -> list[str]:
    """Return the children of this process that nobody has collected."""
    listing = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True, text=True, check=True
    )
    return [state for state in listing.stdout.split() if state.startswith("Z")]


def test_runs_in_two_threads_go_on_at_the_same_time(run: Runner, other: Runner) -> None:
    """Each job sees the other one running."""

    def meet(mine: Runner, theirs: Runner) -> int:
        note(mine.folder, "here")
        return 0 if eventually(lambda: "here" in pids_in(theirs.folder)) else 1

    both = concurrently(lambda: run(lambda: meet(run, other)), lambda: other(lambda: meet(other, run)))
    assert [0, 0] == [ended.exit_code for ended in both]


def test_a_run_may_be_asked_for_in_any_thread(run: Runner) -> None:
    """Test runners start threads that `threading` does not know; executors of a job end there all the same."""
    results: list[Ended] = []

    def body() -> int:
        ThreadPoolExecutor().submit(time.sleep, 0.1)
        return 7

    _thread.start_new_thread(lambda: results.append(run(body)), ())
    assert eventually(lambda: bool(results))
    assert 7 == results[0].exit_code
    assert "" == run.stderr


def test_a_job_may_run_a_job(run: Runner, other: Runner) -> None:
    """A supervisor below a supervisor works, and goes with the outer one's deadline."""
    assert 9 == run(lambda: other(lambda: 9).exit_code or 0).exit_code

    def body() -> int:
        note(other.folder, "job")
        return hang()

    ended = run(lambda: other(body).exit_code or 0, timeout=0.5, grace=0)
    assert ended.timed_out
    assert is_gone(pids_in(other.folder)["job"])


def test_forking_beside_threads_warns_of_nothing(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 and newer warn about a fork in a process with threads, and here a warning is an error."""
    fork = os.fork

    def fork_and_warn() -> int:
        if (pid := fork()) and threading.active_count() > 1:
            message = (
                f"This process (pid={os.getpid()}) is multi-threaded, use of fork() may lead to deadlocks in the child."
            )
            warnings.warn(message, DeprecationWarning, stacklevel=2)
        return pid

    if sys.version_info < (3, 12):
        monkeypatch.setattr(os, "fork", fork_and_warn)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    filters = len(warnings.filters)
    try:
        ended = run(lambda: int(len(warnings.filters) != filters))
    finally:
        stop.set()
        thread.join()
    assert 0 == ended.exit_code
    assert filters == len(warnings.filters)


@pytest.mark.parametrize(("timeout", "grace"), [(0, 0), (-1, 0), (float("nan"), 0), (float("inf"), 0), (1, -1)])
def test_what_is_no_time_is_refused(run: Runner, timeout: float, grace: float) -> None:
    """A run without a deadline is not to be had."""
    with pytest.raises(InvalidArgument, match=f"got timeout={timeout}, grace={grace}"):
        run(lambda: 0, timeout=timeout, grace=grace)


def test_a_file_that_cannot_be_written_is_named(run: Runner) -> None:
    """The output's place is checked before anything is started."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run_forked(lambda: 0, timeout=1, stdout=run.folder / "nowhere" / "stdout.txt", stderr=run.stderr_file)


# ---------------------------------------------------------------------------------------------------------------- torch


def test_backward_works_in_the_parent_and_then_in_the_job(run: Runner) -> None:
    """A job with one thread trains in a process forked after parallel regions."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()

    def train() -> int:
        weights = torch.ones(600, 600, requires_grad=True)
        (weights @ weights).sum().backward()
        return int(weights.grad[0, 0] != 1200)

    def body() -> int:
        torch.set_num_threads(1)
        return train()

    torch.set_num_threads(2)
    try:
        assert 0 == train()
        assert 0 == run(body).exit_code
    finally:
        torch.set_num_threads(threads)


def test_workers_of_a_data_loader_that_persist_are_no_leftovers(run: Runner) -> None:
    """They end when the job does, as they end with a program."""
    torch = pytest.importorskip("torch")

    def body() -> int:
        torch.set_num_threads(1)
        loader = torch.utils.data.DataLoader(list(range(8)), num_workers=2, persistent_workers=True)
        iterator = iter(loader)
        next(iterator)
        loader.keep = iterator
        return 0

    ended = run(body)
    assert (0, (), "") == (ended.exit_code, ended.leftovers, run.stderr)


# --------------------------------------------------------------------------------------------------------- spawned jobs


def tell(word: str) -> int:
    """Show where and in what a spawned job runs."""
    print(word, os.environ.get("GREETING"), Path.cwd().name, threading.main_thread() is threading.current_thread())
    print(sorted(fd for fd in processes.open_descriptors() if 2 < fd < 100 and Path(f"/proc/self/fd/{fd}").exists()))
    return 4


def test_a_spawned_job_starts_afresh(run: Runner) -> None:
    """It gets its arguments, folder and environment, and no descriptors of pytest."""
    (run.folder / "there").mkdir()
    ended = run.spawned(tell, "hello", cwd=run.folder / "there", env={**os.environ, "GREETING": "hi"})
    assert (4, "") == (ended.exit_code, run.stderr)
    assert "hello hi there True\n[]\n" == run.stdout
    assert [] == list(run.folder.glob("*.pickle"))


def test_a_spawned_job_may_be_local_to_a_test(run: Runner) -> None:
    """Functions that no import finds travel by value."""
    offset = 40

    def body(number: int) -> int:
        return number + offset

    assert 42 == run.spawned(body, 2).exit_code


def test_an_exception_in_a_spawned_job_is_exit_code_70_with_its_traceback(run: Runner) -> None:
    """It is told like that of a forked job."""

    def body() -> int:
        message = "no such layer"
        raise LookupError(message)

    assert spawn.CRASHED == run.spawned(body).exit_code
    assert run.stderr.endswith("LookupError: no such layer\n")


def test_a_spawned_job_that_hangs_is_killed_with_all_it_started(run: Runner) -> None:
    """Stacks, deadline and descendants are seen to as for a forked job."""

    def body() -> int:
        subprocess.Popen(["sleep", "1011"], start_new_session=True)
        return hang()

    ended = run.spawned(body, timeout=1.5, grace=0)
    assert (signal.SIGKILL, True) == (ended.signal, ended.timed_out)
    assert ["sleep 1011"] == [leftover.command for leftover in ended.leftovers]
    assert "in hang" in run.stderr.partition(STACKS_FOLLOW)[2]


def test_what_cannot_be_sent_to_a_fresh_process_is_named(run: Runner) -> None:
    """The message names the variable and the argument that do not pickle, and what to do."""
    lock = threading.Lock()

    def body(*_: object) -> int:
        return int(lock.locked())

    with pytest.raises(HarnessError) as caught:
        run.spawned(body, 1, threading.Lock())
    message = str(caught.value)
    assert "argument 1 (a lock) and its variable 'lock' (a lock) can't be pickled" in message
    assert "Create it inside the job" in message
    assert [] == list(run.folder.glob("*.pickle"))


def in_group(run: Runner, program: str, *, timeout: float = 20) -> Ended:
    """Run a program as where there are no supervisors."""
    return spawn.run_in_group(
        [sys.executable, "-c", program],
        cwd=None,
        env=os.environ,
        timeout=timeout,
        stdout=run.stdout_file,
        stderr=run.stderr_file,
        grace=0.1,
    )


def test_without_supervisors_a_job_ends_with_its_process_group(run: Runner) -> None:
    """Off Linux, what has stayed in the job's process group goes with it."""
    ended = in_group(run, "import subprocess, sys; print(subprocess.Popen(['sleep', '1012']).pid); sys.exit(3)")
    assert (3, None, False) == (ended.exit_code, ended.signal, ended.timed_out)
    assert eventually(lambda: is_gone(int(run.stdout)))


def test_without_supervisors_a_job_that_hangs_writes_its_stacks_and_is_killed(run: Runner) -> None:
    """Off Linux, a deadline holds too."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pytest_ckpt.runs import spawn; import time; "
    ended = in_group(run, program + "spawn.show_stacks_on_signal(); time.sleep(1000)", timeout=1.5)
    assert (None, signal.SIGKILL, True) == (ended.exit_code, ended.signal, ended.timed_out)
    assert "most recent call first" in run.stderr


def test_off_linux_a_job_is_spawned_or_not_run_at_all(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no supervisors, a forked run is refused and a spawned one works."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 4 == run.spawned(tell, "hello").exit_code
    with pytest.raises(HarnessError, match="run_forked needs Linux and this is darwin; call run_spawned instead"):
        run(lambda: 0)
