"""While pytest waits for a rehearsal, a line below its own says how far that has come; where nobody sees it, nothing does."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from plugin.conftest import QUIET
from pytest_ckpt.runs.progress import Going
from pytest_ckpt.shell.progress import cut, sentence

if TYPE_CHECKING:
    from plugin.conftest import Sessions

#: A job whose steps take a hundredth of a second each, on any machine.
JOB = """
    import time
    from jobs import hf
    from transformers import TrainerCallback

    class Slow(TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            time.sleep(0.01)

    @pytest.mark.ckpt_final_step
    def test_job(ckpt_job):
        trainer = hf.trainer(ckpt_job, max_steps=STEPS, save_strategy="no", callbacks=[Slow()])
        ckpt_job.rehearse(trainer) if REHEARSED else trainer.train()
"""


def on_a_terminal(sessions: Sessions, *arguments: str) -> str:
    """Run pytest on a terminal of its own, and return what it wrote there."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", *QUIET, "--ckpt-contract", *arguments]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=sessions.pytester.path, env=environment
    )
    os.close(theirs)
    written = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            written += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    assert process.wait(timeout=60) in {0, 1}
    os.close(ours)
    return written.decode()


def seen(screen: str) -> list[str]:
    """Return what was written to the line below pytest's own, in order; the cursor is back in its place after each."""
    assert screen.count("\x1b7") == screen.count("\x1b8")
    return [part.partition("\x1b[K\x1b8")[0] for part in screen.split("\x1b7\r\n")[1:]]


@pytest.mark.parametrize("capture", ["fd", "no"])
def test_a_long_rehearsal_says_how_far_it_is(sessions: Sessions, capture: str) -> None:
    """At most once a second, and at the end it is gone."""
    sessions.write(JOB.replace("STEPS", "350").replace("REHEARSED", "True"))
    screen = on_a_terminal(sessions, f"--capture={capture}", "-v")
    lines = seen(screen)
    assert lines[0].startswith("rehearsing test_job: step "), screen
    assert " of 350" in lines[0]
    assert any(" steps/s, " in line for line in lines[1:]), screen
    assert "" == lines[-1]
    assert "test_job[final_step] " in screen.partition("\x1b")[0].splitlines()[-1]  # the line that pytest is writing
    assert len(lines) < 60


def test_nothing_is_said_of_a_real_run_nor_of_a_short_rehearsal(sessions: Sessions) -> None:
    """What takes less than a second needs no line, and a real run is on a tiny model."""
    sessions.write(JOB.replace("STEPS", "200").replace("REHEARSED", "False"), "test_real")
    sessions.write(JOB.replace("STEPS", "20").replace("REHEARSED", "True"), "test_short")
    assert [] == seen(on_a_terminal(sessions, "-v"))


@pytest.mark.parametrize("arguments", [("-q",), ("-p", "xdist", "-n1")], ids=["quiet", "workers"])
def test_nothing_is_said_where_nobody_asked(sessions: Sessions, arguments: tuple[str, ...]) -> None:
    """In a quiet session, and in one whose terminal shows several workers."""
    sessions.write(JOB.replace("STEPS", "200").replace("REHEARSED", "True"))
    assert [] == seen(on_a_terminal(sessions, *arguments))


def test_nothing_is_said_without_a_terminal(sessions: Sessions) -> None:
    """A log of continuous integration has no use for it."""
    sessions.write(JOB.replace("STEPS", "200").replace("REHEARSED", "True"))
    assert "rehearsing" not in sessions.apart("-v").stdout.str()


@pytest.mark.parametrize(
    ("going", "speed", "said"),
    [
        (Going(12000, 100_000), 1400.0, "rehearsing test_x: step 12000 of 100000, 1400 steps/s, 63 s to go"),
        (Going(12000, None), 1400.0, "rehearsing test_x: step 12000, 1400 steps/s"),
        (Going(120, 100), 10.0, "rehearsing test_x: step 120 of 100, 10 steps/s, 0 s to go"),
        (Going(1, 100), 0.0, "rehearsing test_x: step 1 of 100"),
    ],
)
def test_what_is_not_known_is_left_out(going: Going, speed: float, said: str) -> None:
    """The speed at first, and the end where it is not planned."""
    assert said == sentence("test_x", going, speed)


def test_a_line_is_one_line() -> None:
    """What would take two of a narrow terminal loses of the name."""
    line = "rehearsing test_a_long_name: step 12000 of 100000, 63 s to go"
    assert line == cut(line, len(line) + 1)
    assert "rehearsing test_...: step 12000 of 100000, 63 s to go" == cut(line, 54)
    assert 19 == len(cut(line, 20))
