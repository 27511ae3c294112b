"""What the log says a crash leaves is what a crash leaves: random programs are really killed at each of their operations."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashes.conftest import content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crashes.conftest import Programs
    from pytest_ckpt.records.operation import Operation

Step: TypeAlias = "tuple[str, ...]"

NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "l", "l/a", "d/e/a"])
TEXTS = st.sampled_from(["", "x", "hello", "z" * 5000, "y" * 20000])
STEPS = st.one_of(
    st.tuples(st.just("write"), NAMES, TEXTS),
    st.tuples(st.just("append"), NAMES, TEXTS),
    st.tuples(st.just("inside"), NAMES, TEXTS),
    st.tuples(st.just("overwrite after rename"), NAMES, NAMES, TEXTS),
    st.tuples(st.just("write after unlink"), NAMES, TEXTS),
    st.tuples(st.just("truncate"), NAMES),
    st.tuples(st.just("allocate"), NAMES),
    st.tuples(st.just("mkdir"), NAMES),
    st.tuples(st.just("rmdir"), NAMES),
    st.tuples(st.just("unlink"), NAMES),
    st.tuples(st.just("rmtree"), NAMES),
    st.tuples(st.just("rename"), NAMES, NAMES),
    st.tuples(st.just("link"), NAMES, NAMES),
    st.tuples(st.just("symlink"), NAMES, NAMES),
    st.tuples(st.just("copytree"), NAMES, NAMES),
    st.tuples(st.just("move in"), NAMES, TEXTS),
    st.tuples(st.just("move out"), NAMES),
    st.tuples(st.just("sync"), NAMES),
)


def inside(path: Path, text: str) -> None:
    """Write in the middle of a file, or beyond its end."""
    file = os.open(path, os.O_RDWR)
    os.pwrite(file, text.encode(), 3)
    os.writev(file, [b"ab", text.encode()])
    os.close(file)


def overwrite_after_rename(path: Path, target: Path, text: str) -> None:
    """Write on to a file that has got another name."""
    with path.open("a", encoding="ascii") as file:
        file.write(text)
        file.flush()
        path.rename(target)
        file.write(text)


def write_after_unlink(path: Path, text: str) -> None:
    """Write to a file that has no name any more, while another one has got it."""
    with path.open("w", encoding="ascii") as file:
        path.unlink()
        path.touch()
        file.write(text)


def allocate(path: Path) -> None:
    """Make room at the end of a file."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 10, 100)


def sync(path: Path) -> None:
    """Make a file or directory durable."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.close(file)


def move_in(outside: Path, path: Path, text: str) -> None:
    """Write a file elsewhere and move it."""
    outside.write_text(text, encoding="ascii")
    outside.rename(path)


def take(root: Path, step: Step) -> None:
    """Do one step of a program."""
    name, first, *more = step
    path = root / first
    second = root / more[0] if more and name in {"rename", "link", "copytree", "overwrite after rename"} else None
    actions: dict[str, Callable[[], object]] = {
        "write": lambda: path.write_text(more[0], encoding="ascii"),
        "append": lambda: path.open("a", encoding="ascii").write(more[0]),
        "inside": lambda: inside(path, more[0]),
        "overwrite after rename": lambda: overwrite_after_rename(path, second or path, more[1]),
        "write after unlink": lambda: write_after_unlink(path, more[0]),
        "truncate": lambda: os.truncate(path, 7),
        "allocate": lambda: allocate(path),
        "mkdir": path.mkdir,
        "rmdir": path.rmdir,
        "unlink": path.unlink,
        "rmtree": lambda: shutil.rmtree(path),
        "rename": lambda: path.rename(second or path),
        "link": lambda: os.link(path, second or path),
        "symlink": lambda: path.symlink_to(more[0]),
        "copytree": lambda: shutil.copytree(path, second or path, symlinks=True),
        "move in": lambda: move_in(root.parent / "outside", path, more[0]),
        "move out": lambda: path.rename(root.parent / "out"),
        "sync": lambda: sync(path),
    }
    actions[name]()


def program(steps: list[Step]) -> Callable[[Path], None]:
    """Return a program that goes on whatever the kernel refuses."""

    def run(root: Path) -> None:
        for step in steps:
            with suppress(OSError, shutil.Error):
                take(root, step)

    return run


def kill_at(number: int) -> Callable[[int, Operation], int]:
    """Return an answer that kills the program when it begins an operation, which is then never carried out."""

    def answer(count: int, operation: Operation) -> int:
        if count == number:
            os.kill(operation.process, signal.SIGKILL)
            return 5
        return 0

    return answer


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEPS, min_size=3, max_size=25), where=st.floats(0, 1))
def test_a_state_is_what_a_kill_leaves(programs: Programs, steps: list[Step], where: float) -> None:
    """The replayed log is what the whole run left, and its beginning what a killed run left."""
    whole = programs.run(program(steps))
    assert content(whole.left) == content(whole.replayed)
    if not whole.operations:
        return
    number = int(where * (len(whole.operations) - 1))
    killed = programs.run(program(steps), kill_at(number))
    assert signal.SIGKILL == killed.ended.signal
    assert [(one.kind, one.path) for one in whole.operations[:number]] == [
        (one.kind, one.path) for one in killed.operations
    ]
    assert content(killed.replayed) == content(killed.left)
    if whole.operations[:number]:
        assert content(killed.left) in [content(state.tree) for state in whole.states if not state.lost]
