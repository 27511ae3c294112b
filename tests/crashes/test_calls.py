"""Each call that changes a directory is seen as what it does, whoever makes it, and however it names its files."""

# ruff: noqa: S607 - programs that the shell's path finds

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from crashes.conftest import content
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.runs.processes import descendants
from pytest_ckpt.runs.supervise import run_forked

if TYPE_CHECKING:
    from collections.abc import Callable

    from crashes.conftest import Programs, Traced

_LIBRARY: Final[Any] = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
#: The numbers of calls that Python has no function for, which are the same on both architectures but for the last.
_RENAMEAT2: Final = {"x86_64": 316, "aarch64": 276}.get(platform.machine(), 0)
_OPENAT2: Final = 437
_IO_URING_SETUP: Final = 425
_AT_FDCWD: Final = -100
_O_TMPFILE: Final = getattr(os, "O_TMPFILE", 0)


def write(path: Path, text: str = "text") -> None:
    """Write a file."""
    path.write_text(text, encoding="ascii")


def open_at(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file."""
    return os.open(path, flags | os.O_CREAT, 0o644)


def in_pieces(root: Path) -> None:
    """Write by every call that there is for it, at given places and at the current one."""
    file = open_at(root / "a")
    os.write(file, b"0123456789")
    os.pwrite(file, b"ab", 2)
    os.writev(file, [b"cd", b"", b"ef"])
    os.pwritev(file, [b"gh", b"i"], 20)
    os.pwritev(file, [b"end"], 0, getattr(os, "RWF_APPEND", 0))
    os.close(file)


def appended(root: Path) -> None:
    """Write to the end of a file, wherever another descriptor stands."""
    first, second = open_at(root / "a"), open_at(root / "a", os.O_WRONLY | os.O_APPEND)
    os.write(first, b"12345")
    os.lseek(first, 1, os.SEEK_SET)
    os.write(second, b"6789")
    os.write(first, b"x")
    os.close(first)
    os.close(second)


def copied(root: Path) -> None:
    """Copy within the kernel, from a place in the source and from where it stands."""
    write(root / "a", "0123456789" * 1000)
    shutil.copyfile(root / "a", root / "b")
    source, target = os.open(root / "a", os.O_RDONLY), open_at(root / "c")
    os.copy_file_range(source, target, 5000, 100, 7)
    os.sendfile(target, source, 50, 500)
    os.sendfile(target, source, None, 10)
    os.close(source)
    os.close(target)


def resized(root: Path) -> None:
    """Truncate, by name and descriptor, and make room."""
    write(root / "a", "0123456789")
    os.truncate(root / "a", 3)
    file = open_at(root / "a")
    os.ftruncate(file, 8)
    os.posix_fallocate(file, 6, 10)
    os.close(file)
    open_at(root / "a", os.O_WRONLY | os.O_TRUNC)


def punched(root: Path) -> None:
    """Wipe a range within a file."""
    write(root / "a", "x" * 10000)
    file = open_at(root / "a")
    if _LIBRARY.fallocate(file, 3, ctypes.c_long(4096), ctypes.c_long(4096)):
        os.pwrite(file, bytes(4096), 4096)  # a file system without holes
    os.close(file)


def by_descriptors(root: Path) -> None:
    """Name everything relative to directories that are open."""
    folder = os.open(root, os.O_RDONLY)
    os.mkdir("d", dir_fd=folder)
    below = os.open("d", os.O_RDONLY, dir_fd=folder)
    file = os.open("a", os.O_CREAT | os.O_WRONLY, dir_fd=below)
    os.write(file, b"text")
    os.rename("a", "b", src_dir_fd=below, dst_dir_fd=folder)
    os.link("b", "c", src_dir_fd=folder, dst_dir_fd=below)
    os.symlink("c", "l", dir_fd=below)
    os.unlink("b", dir_fd=folder)
    os.write(file, b"more")
    os.rmdir("none", dir_fd=folder) if Path("/none").exists() else None


def by_directory(root: Path) -> None:
    """Name everything relative to the current directory, and by ways around."""
    os.chdir(root)
    write(Path("a"))
    Path("d").mkdir()
    os.chdir("d")
    write(Path("../d/./b"))
    Path("../a").rename("a")


def through_links(root: Path) -> None:
    """Reach a directory and a file by symbolic links, from within and from elsewhere."""
    (root / "d").mkdir()
    (root / "l").symlink_to("d")
    write(root / "l" / "a")
    (root / "d" / "f").symlink_to("a")
    with (root / "d" / "f").open("a", encoding="ascii") as file:
        file.write("more")
    outside = root.parent / "way"
    outside.symlink_to(root)
    write(outside / "b")
    (outside / "l").unlink()


def exchanged(root: Path) -> None:
    """Swap two directories by one call, and rename where nothing may be replaced."""
    (root / "a").mkdir()
    write(root / "a" / "x")
    (root / "b").mkdir()
    write(root / "b" / "y")
    one, two = os.fsencode(root / "a"), os.fsencode(root / "b")
    _LIBRARY.syscall(_RENAMEAT2, _AT_FDCWD, one, _AT_FDCWD, two, 2)
    _LIBRARY.syscall(_RENAMEAT2, _AT_FDCWD, one, _AT_FDCWD, two, 1)
    _LIBRARY.syscall(_RENAMEAT2, _AT_FDCWD, one, _AT_FDCWD, os.fsencode(root / "c"), 1)


def opened_anew(root: Path) -> None:
    """Open by the newest call, which keeps its flags in a structure."""
    how = (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_WRONLY, 0o644, 0)
    file = _LIBRARY.syscall(_OPENAT2, _AT_FDCWD, os.fsencode(root / "a"), how, ctypes.sizeof(how))
    if file >= 0:
        os.write(file, b"text")


def without_a_name(root: Path) -> None:
    """Write a file that gets its name when it is whole."""
    file = os.open(root, _O_TMPFILE | os.O_RDWR)
    os.write(file, b"text")
    assert 0 == _LIBRARY.linkat(_AT_FDCWD, f"/proc/self/fd/{file}".encode(), _AT_FDCWD, os.fsencode(root / "a"), 0x400)
    os.write(file, b"more")


def removed_while_open(root: Path) -> None:
    """Write on to what has no name any more, while another file has got it."""
    file = open_at(root / "a")
    (root / "a").unlink()
    write(root / "a", "other")
    os.write(file, b"lost")


def by_others(root: Path) -> None:
    """Let a program, a forked child and a thread write, too."""
    subprocess.run(["sh", "-c", "echo one > a; mv a b; cp b c; mkdir -p d/e; ln b d/e/f; rm c"], cwd=root, check=True)
    if os.fork() == 0:
        write(root / "forked")
        os._exit(0)
    os.wait()
    thread = threading.Thread(target=write, args=(root / "thread",))
    thread.start()
    thread.join()


def from_elsewhere(root: Path) -> None:
    """Move a file and a directory in, link to a file, and move a directory out."""
    write(root.parent / "file")
    (root.parent / "folder" / "below").mkdir(parents=True)
    write(root.parent / "folder" / "below" / "a")
    (root.parent / "folder" / "link").symlink_to("below")
    os.link(root.parent / "file", root / "linked")
    (root.parent / "file").rename(root / "file")
    (root.parent / "folder").rename(root / "folder")
    (root / "folder" / "below").rename(root.parent / "out")


def cloned(root: Path) -> None:
    """Ask for a copy that shares its bytes, which a job under the tracer does not get, and copy then."""
    write(root / "a", "0123456789")
    source, target = os.open(root / "a", os.O_RDONLY), open_at(root / "b")
    try:
        fcntl.ioctl(target, 0x40049409, source)
    except OSError:
        os.copy_file_range(source, target, 100)


def refused(root: Path) -> None:
    """Ask for what the kernel does not do."""
    write(root / "a")
    (root / "d").mkdir()
    write(root / "d" / "b")
    for attempt in (
        (root / "a").mkdir,
        (root / "d").rmdir,
        lambda: (root / "d").rename(root / "d" / "below"),
        lambda: (root / "none").rename(root / "b"),
        lambda: os.link(root / "a", root / "d"),
        lambda: write(root / "none" / "a"),
        lambda: os.open(root / "a", os.O_CREAT | os.O_EXCL),
        lambda: (root / "a").rename(root / "d"),
        lambda: os.truncate(root / "none", 3),
        lambda: os.write(77, b"text"),
    ):
        with pytest.raises(OSError, match="Errno"):
            attempt()


PROGRAMS: Final[list[Callable[[Path], None]]] = [
    in_pieces,
    appended,
    copied,
    resized,
    punched,
    by_descriptors,
    by_directory,
    through_links,
    exchanged,
    opened_anew,
    without_a_name,
    removed_while_open,
    by_others,
    from_elsewhere,
    cloned,
    refused,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_log_says_what_is_left(programs: Programs, program: Callable[[Path], None]) -> None:
    """Replayed to its end, the log is the real directory; and something was left, so that this says something."""
    traced = programs.run(program)
    assert 0 == traced.ended.exit_code, (traced.root.parent / "stderr").read_text(encoding="utf-8")
    assert traced.left.entries
    assert content(traced.left) == content(traced.replayed)
    assert [] == [operation.call for operation in traced.operations if operation.kind == "unseen"]


def test_what_was_there_before_is_known(programs: Programs) -> None:
    """A run that goes on in a directory that holds something."""

    def setup(root: Path) -> None:
        write(root / "a", "0123456789")
        (root / "d").mkdir()

    def program(root: Path) -> None:
        with (root / "a").open("r+", encoding="ascii") as file:
            file.seek(3)
            file.write("x")
        (root / "a").rename(root / "d" / "a")

    traced = programs.run(program, setup=setup)
    assert content(traced.left) == content(traced.replayed)
    assert ["a", "d"] == [entry.path for entry in traced.states[0].tree.entries]


def mapped(root: Path) -> None:
    """Write through memory."""
    write(root / "a", "0123456789")
    with (root / "a").open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:3] = b"abc"


def spliced(root: Path) -> None:
    """Move bytes from a pipe into a file."""
    ours, theirs = os.pipe()
    os.write(theirs, b"text")
    _LIBRARY.splice(ours, None, open_at(root / "a"), None, ctypes.c_size_t(4), 0)


@pytest.mark.parametrize(
    ("program", "call"),
    [(mapped, "mmap"), (spliced, "splice")],
    ids=["memory", "pipe"],
)
def test_what_can_not_be_followed_is_told(programs: Programs, program: Callable[[Path], None], call: str) -> None:
    """Such a run is not judged by its log."""
    unseen = [operation.call for operation in programs.run(program).operations if operation.kind == "unseen"]
    assert [call] == unseen


def test_no_ring_is_set_up(programs: Programs) -> None:
    """Through one, writes would go without a call; who asks for one is told that there is none, and calls."""

    def program(root: Path) -> None:
        assert -1 == _LIBRARY.syscall(_IO_URING_SETUP, 8, (ctypes.c_char * 120)())
        assert errno.EPERM == ctypes.get_errno()
        write(root / "a")

    traced = programs.run(program)
    assert 0 == traced.ended.exit_code, traced.ended
    assert content(traced.left) == content(traced.replayed)


def test_reading_through_memory_is_no_writing(programs: Programs) -> None:
    """As readers of safetensors and numpy do."""

    def program(root: Path) -> None:
        write(root / "a", "0123456789")
        with (root / "a").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
            assert b"012" == memory[0:3]
        with (root / "a").open("r+b") as writable, mmap.mmap(writable.fileno(), 0, access=mmap.ACCESS_COPY) as memory:
            memory[0:3] = b"abc"

    assert [] == [operation for operation in programs.run(program).operations if operation.kind == "unseen"]


def lines_of(traced: Traced) -> list[str]:
    """Return what was done, without what opens files."""
    return [line for line in traced.lines if not line.startswith("open ")]


def test_synchronisation_is_seen(programs: Programs) -> None:
    """Of files, directories and everything."""

    def program(root: Path) -> None:
        with (root / "a").open("w", encoding="ascii") as file:
            os.fsync(file.fileno())
            file.write("text")
            file.flush()
            os.fdatasync(file.fileno())
        os.fsync(os.open(root, os.O_RDONLY))
        os.sync()

    lines = lines_of(programs.run(program))
    assert ["sync a", "write a, bytes 0 to 4", "sync a", "sync its directory", "sync everything"] == lines


def test_processes_threads_and_ranks_are_known(programs: Programs) -> None:
    """A rank is what the environment of a program says, as torchrun sets it."""

    def program(root: Path) -> None:
        for rank in ("0", "1"):
            subprocess.run(["sh", "-c", f"echo > {rank}"], cwd=root, env={**os.environ, "RANK": rank}, check=True)
        write(root / "own")

    traced = programs.run(program)
    ranks = {operation.path: operation.rank for operation in traced.operations if operation.kind == "open"}
    assert {"0": 0, "1": 1, "own": None} == ranks
    assert 3 == len({operation.process for operation in traced.operations})


def test_a_process_that_becomes_another_program_has_its_rank(programs: Programs) -> None:
    """As a launcher's child writes something, and then starts the job in its own place."""
    again = "import os, sys; open(sys.argv[1], 'w').write('text')"

    def program(root: Path) -> None:
        write(root / "before")
        os.environ["RANK"] = "3"
        os.execv(sys.executable, [sys.executable, "-c", again, str(root / "after")])  # noqa: S606 - it is what the test is about

    traced = programs.run(program)
    assert content(traced.left) == content(traced.replayed)
    assert {"before": {None}, "after": {3}} == {
        path: {operation.rank for operation in traced.operations if operation.path == path}
        for path in ("before", "after")
    }


def test_more_threads_than_are_remembered(programs: Programs) -> None:
    """Each is seen rightly when it comes back."""

    def program(root: Path) -> None:
        barrier = threading.Barrier(100)

        def thread(number: int) -> None:
            for turn in range(2):
                write(root / f"{turn}-{number}", str(number))
                barrier.wait()

        threads = [threading.Thread(target=thread, args=(number,)) for number in range(100)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    traced = programs.run(program)
    assert content(traced.left) == content(traced.replayed)
    assert 100 == len({operation.thread for operation in traced.operations})


def test_a_signal_makes_no_call_twice(programs: Programs) -> None:
    """A timer that interrupts calls, as a profiler's does, leaves each of them once in the log."""

    def program(root: Path) -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        with (root / "a").open("ab", buffering=0) as file:
            for number in range(200):
                file.write(b"%03d" % number)
        signal.setitimer(signal.ITIMER_REAL, 0)

    traced = programs.run(program)
    assert 200 == len(lines_of(traced))
    assert content(traced.left) == content(traced.replayed)


def test_threads_overlap(programs: Programs) -> None:
    """Operations of several threads are all there."""

    def program(root: Path) -> None:
        def work(name: str) -> None:
            for number in range(10):
                write(root / f"{name}{number}", "x" * 50000)
                (root / f"{name}{number}").rename(root / f"{name}")

        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    traced = programs.run(program)
    assert content(traced.left) == content(traced.replayed)
    assert 90 <= len(traced.operations)


def test_a_program_that_dies_or_leaves_a_child_is_followed_to_the_end(programs: Programs) -> None:
    """What was begun before is in the log; what goes on is waited for, within the grace that leftovers get."""

    def program(root: Path) -> None:
        write(root / "a")
        if os.fork() == 0:
            os.setsid()
            write(root / "b")
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    traced = programs.run(program)
    assert signal.SIGKILL == traced.ended.signal
    assert content(traced.left) == content(traced.replayed)


def test_nothing_is_left_of_a_traced_run(programs: Programs) -> None:
    """No descriptor stays open in this process, and no process below it."""
    before = len(os.listdir("/proc/self/fd")), set(descendants(os.getpid()))  # noqa: PTH208 - names only
    for _ in range(5):
        programs.run(in_pieces)
    assert before == (len(os.listdir("/proc/self/fd")), set(descendants(os.getpid())))  # noqa: PTH208


def test_an_untraced_run_makes_no_log(tmp_path: Path) -> None:
    """Runs that nobody asked to trace pay nothing for it."""
    ended = run_forked(lambda: 0, timeout=30, stdout=tmp_path / "out", stderr=tmp_path / "err")
    assert "" == ended.untraced
    assert ["err", "out"] == sorted(path.name for path in tmp_path.iterdir())


def test_why_nothing_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system, another processor, and without the library."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert "riscv64" in why_not()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "seccompy", None)
    assert "seccompy is not installed" in why_not()
    monkeypatch.setattr("sys.platform", "darwin")
    assert "darwin" in why_not()


def test_what_a_process_did_that_has_ended_is_done(programs: Programs) -> None:
    """No state has what it wrote last undone once others go on."""

    def program(root: Path) -> None:
        for number in range(5):
            subprocess.run(["sh", "-c", f"echo {number} > {number}"], cwd=root, check=True)
            write(root / f"own{number}")

    traced = programs.run(program)
    assert content(traced.left) == content(traced.replayed)
    assert [] == [state.undone for state in traced.states if state.undone]
