"""At its end a session says what became of every contract that was selected."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from plugin.conftest import QUIET

if TYPE_CHECKING:
    from plugin.conftest import Sessions

MISSING = "* selected contract* came to no verdict*"


def section(result: pytest.RunResult) -> str:
    """Return the section of a session."""
    lines = result.outlines
    start = next(number for number, line in enumerate(lines) if "= checkpoint contracts =" in line)
    end = next(number for number, line in enumerate(lines) if number > start and line.startswith("==="))
    return "\n".join(line.partition(" tests, ")[0] for line in lines[start + 1 : end])


def test_every_outcome_has_its_place(sessions: Sessions) -> None:
    """Broken, undecided, skipped, in error, expected and not: a row each, and nothing is missing."""
    sessions.write(
        """
        @pytest.mark.ckpt_contract
        def test_whole(ckpt_job):
            train(ckpt_job)

        @pytest.mark.ckpt_contract
        def test_broken(ckpt_job):
            train(ckpt_job, every=3, save_last=False)

        @pytest.mark.ckpt_final_step(xfail="#7")
        def test_expected(ckpt_job):
            train(ckpt_job, every=3, save_last=False)

        @pytest.mark.ckpt_final_step(xfail="#7")
        def test_unexpected(ckpt_job):
            train(ckpt_job)

        @pytest.mark.ckpt_final_step
        def test_error(ckpt_job):
            raise ValueError("no data")

        @pytest.fixture
        def broken():
            raise ValueError("no fixture")

        @pytest.mark.ckpt_final_step
        def test_fixture(ckpt_job, broken):
            train(ckpt_job)

        @pytest.mark.ckpt_final_step
        def test_skipped(ckpt_job):
            pytest.skip("needs two GPUs")

        @pytest.mark.ckpt_final_step
        @pytest.mark.skip(reason="later")
        def test_later(ckpt_job):
            train(ckpt_job)

        def test_unrelated(): pass
        """
    )
    result = sessions()
    result.stdout.no_fnmatch_line(MISSING)
    assert snapshot("""\
test_jobs.py       final_step  complete  faithful  resumable
  test_broken      BROKEN      ok        ok        ok
    final_step: training ended at step 4 and the newest checkpoint is of step 3: step 4 is lost
    1 2 [3] (4)    lost: 4
  test_error       error
    the job failed before its first optimizer step: ValueError: no data
  test_fixture     error
    ValueError: no fixture
  test_expected    xfail
    1 2 [3] (4)    lost: 4
  test_unexpected  XPASS
    1 [2] 3 [4]
  test_skipped     skipped
  test_later       skipped
  test_whole       ok          ok        ok        ok
    1 [2] 3 [4]
not applicable: steps, count, retention, best, loadable
[n] on disk  (n) last step
1 broken, 2 errors, 1 xpass, 7 ok, 1 xfail, 10 n/a, 2 skipped in 8\
""") == section(result)


def test_a_session_without_contracts_says_nothing(sessions: Sessions) -> None:
    """A project that switches them on for good may have runs without any."""
    sessions.write("def test_unrelated(): pass")
    sessions().stdout.no_fnmatch_line("*checkpoint contracts*")


def test_a_teardown_that_fails(sessions: Sessions) -> None:
    """It is an error of the item that set the fixture up, and the verdicts stand."""
    sessions.write(
        """
        @pytest.fixture
        def tidy():
            yield
            raise ValueError("untidy")

        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(2)
        def test_job(ckpt_job, tidy):
            train(ckpt_job)
        """
    )
    result = sessions()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["  test_job    error       ok"])


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_interrupting_a_session(sessions: Sessions) -> None:
    """Ctrl-C ends it in mid-job: no process is left, and the contracts without a verdict are counted."""
    sessions.write(
        """
        import subprocess, sys, time
        from pathlib import Path

        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(2)
        def test_job(ckpt_job):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            Path("started.part").write_text(str(child.pid))
            Path("started.part").rename("started")
            time.sleep(600)
        """
    )
    command = [sys.executable, "-m", "pytest", *QUIET, "--ckpt-contract"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=sessions.pytester.path)
    started = sessions.pytester.path / "started"
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert pytest.ExitCode.INTERRUPTED == process.returncode
    assert "!!!! KeyboardInterrupt !!!!" in output
    assert "2 selected contracts came to no verdict: the session ended before them" in output
    assert not Path(f"/proc/{started.read_text()}").exists()
