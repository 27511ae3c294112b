"""What is written beside the first thread of a program can be held back, and all else goes on; the log stays right."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from crashes.conftest import content
from pytest_ckpt.crashes.answering import noted_in

if TYPE_CHECKING:
    from pathlib import Path

    from crashes.conftest import Programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tracer needs Linux")

DELAY = 0.2
#: Longer than anything that the programs do by themselves, on a machine that is busy, too.
LONG = 1.5


def test_a_thread_waits_and_the_first_one_goes_on(programs: Programs) -> None:
    """What it does meanwhile comes first in the log, and the log leads to what lies there."""

    def program(root: Path) -> None:
        thread = threading.Thread(target=lambda: (root / "late").write_text("late", encoding="ascii"))
        thread.start()
        for number in range(5):
            (root / f"early{number}").write_text("early", encoding="ascii")
        thread.join()

    traced = programs.run(program, delay=LONG)
    assert ["open late, emptied", "write late, bytes 0 to 4"] == traced.lines[-2:]
    assert [False] * 10 + [True] * 2 == [operation.background for operation in traced.operations]
    assert content(traced.left) == content(traced.replayed)
    first, second = traced.operations[-2:]
    assert second.time_ns - first.time_ns >= LONG * 1e9
    assert first.time_ns - traced.operations[0].time_ns >= LONG / 2 * 1e9


def test_bytes_are_noted_as_they_are_when_the_write_goes_on(programs: Programs) -> None:
    """The kernel takes what is in memory then, not what was there when the call began."""

    def program(root: Path) -> None:
        memory = bytearray(b"before")
        file = os.open(root / "a", os.O_CREAT | os.O_WRONLY)
        thread = threading.Thread(target=os.write, args=(file, memory))
        thread.start()
        time.sleep(DELAY / 2)
        memory[:] = b"after!"
        thread.join()

    traced = programs.run(program, delay=LONG)
    assert b"after!" == (traced.root / "a").read_bytes()
    assert content(traced.left) == content(traced.replayed)


def test_another_process_waits_as_well(programs: Programs) -> None:
    """Its first thread is not one that trains."""

    def program(root: Path) -> None:
        started = time.monotonic()
        subprocess.run(["touch", str(root / "a")], check=True)  # noqa: S607 - the shell's path finds it
        (root / "seconds").write_text(str(time.monotonic() - started), encoding="ascii")

    traced = programs.run(program, delay=DELAY)
    assert float((traced.root / "seconds").read_text(encoding="ascii")) >= DELAY
    assert content(traced.left) == content(traced.replayed)


def test_the_first_process_of_each_rank_goes_on(programs: Programs) -> None:
    """And what that starts, with the rank that it inherits, waits."""
    script = (
        "import os, sys; open(f'{sys.argv[1]}/main', 'w'); os.fork() and os.wait() or open(f'{sys.argv[1]}/below', 'w')"
    )

    def program(root: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-c", script, str(root)]
        subprocess.run(command, env={**os.environ, "RANK": "1"}, check=True)

    traced = programs.run(program, delay=DELAY)
    assert {"main": False, "below": True} == {operation.path: operation.background for operation in traced.operations}


def test_what_is_held_back_as_the_program_ends_is_not_noted(programs: Programs) -> None:
    """The kernel has not done it either."""

    def program(root: Path) -> None:
        threading.Thread(target=lambda: (root / "late").write_text("late", encoding="ascii"), daemon=True).start()
        (root / "early").write_text("early", encoding="ascii")
        time.sleep(DELAY / 4)

    traced = programs.run(program, delay=10 * LONG)
    assert ["open early, emptied", "write early, bytes 0 to 5"] == traced.lines
    assert ["late"] == [operation.path for operation in noted_in(traced.root.parent / "abandoned.jsonl")]
    assert content(traced.left) == content(traced.replayed)


def test_a_file_elsewhere_is_not_held_back(programs: Programs) -> None:
    """Only the directory that is watched has a slow disk."""

    def program(root: Path) -> None:
        started = time.monotonic()
        thread = threading.Thread(target=lambda: (root.parent / "a").write_text("text", encoding="ascii"))
        thread.start()
        thread.join()
        (root / "seconds").write_text(str(time.monotonic() - started), encoding="ascii")

    traced = programs.run(program, delay=LONG)
    assert float((traced.root / "seconds").read_text(encoding="ascii")) < LONG
