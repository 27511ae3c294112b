"""Jobs that misbehave: the message names what happened, the next test runs, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from textwrap import indent, wrap
from typing import TYPE_CHECKING, Final

import pytest
from inline_snapshot import snapshot

from pytest_ckpt.runs import processes

if TYPE_CHECKING:
    from plugin.conftest import Sessions

NEXT: Final = """
import os, signal, subprocess, sys, threading, time

@pytest.mark.ckpt_final_step
@pytest.mark.ckpt_count(2)
def test_job(ckpt_job):
{body}

@pytest.mark.ckpt_final_step
def test_next(ckpt_job):
    train(ckpt_job)
"""
#: The command of a process that must not be left behind; no other test process has the same.
SLEEPER: Final = f"time.sleep({100_000 + os.getpid()})"


class Bad:
    """Runs a bad job, then a good one, and looks for what they left."""

    def __init__(self, sessions: Sessions, temporary: Path) -> None:
        self._sessions = sessions
        self._temporary = temporary
        self.result: pytest.RunResult

    def __call__(self, body: str, *arguments: str) -> str:
        """Return the message of the bad job's first item."""
        self._sessions.write(NEXT.format(body=indent(body, "    ")))
        before = self._files(), processes.descendants(os.getpid()).keys()
        self.result = self._sessions("--ckpt-timeout=20", "-p", "no:cacheprovider", *arguments)
        assert before == (self._files(), processes.descendants(os.getpid()).keys())
        assert not sleepers()
        self.result.stdout.fnmatch_lines(["*test_next*ok*"])
        return self._message()

    def _message(self) -> str:
        lines = self.result.outlines
        titles = [number for number, line in enumerate(lines) if re.match(r"_+ .*test_job\[final_step\] _+$", line)]
        if not titles:
            return ""
        rest = lines[titles[0] + 1 :]
        end = next(number for number, line in enumerate(rest) if re.match(r"[-=_]{4,} ", line))
        return re.sub(r"0x[0-9a-f]+|\d+\.\d+ s|pid \d+|(?<=line )\d+", "N", self._plain("\n".join(rest[:end])))

    def _plain(self, text: str) -> str:
        return text.replace(str(self._sessions.pytester.path), "").replace(str(Path(__file__).parent), "")

    def _files(self) -> set[str]:
        """Return the files of the repository and of the system's directory for temporary files."""
        found = [*self._sessions.pytester.path.rglob("*"), *self._temporary.iterdir()]
        return {str(path) for path in found if "__pycache__" not in path.parts}


def sleepers() -> list[str]:
    """Return the processes that a job should not have left."""
    lines = (processes.command_of(int(name)) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - names
    return [line for line in lines if SLEEPER in line]


@pytest.fixture
def bad(sessions: Sessions, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Bad:
    """Runs a bad job and returns its message."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return Bad(sessions, temporary)


# -- jobs that do not end well ---------------------------------------------------------------------------------------


ENDS: Final = {
    "raises": "raise ValueError('no data')",
    "asserts": "train(ckpt_job)\nsaved = len(list(ckpt_job.path.iterdir()))\nassert saved == 3, 'saves'",
    "import": "import no_such_module",
    "os._exit(3)": "train(ckpt_job)\nos._exit(3)",
    "sys.exit(1)": "train(ckpt_job)\nsys.exit(1)",
    "sys.exit(text)": "sys.exit('no GPU')",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGSEGV": "import ctypes\nctypes.string_at(1)",
    "abort": "os.abort()",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "pytest.fail": "pytest.fail('not today')",
    "pytest.exit": "pytest.exit('enough')",
}
MESSAGES: Final = snapshot(
    {
        "raises": """\
the job failed before its first optimizer step: ValueError: no data
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      raise ValueError('no data')\
""",
        "asserts": """\
the job failed after 4 optimizer steps: AssertionError: saves
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      assert saved == 3, 'saves'\
""",
        "import": """\
the job failed before its first optimizer step: ModuleNotFoundError: No module named 'no_such_module'
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      import no_such_module\
""",
        "os._exit(3)": "the job failed after 4 optimizer steps: its process left with exit code 3 in mid-run",
        "sys.exit(1)": """\
the job failed after 4 optimizer steps: SystemExit(1)
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      sys.exit(1)\
""",
        "sys.exit(text)": """\
the job failed before its first optimizer step: SystemExit('no GPU')
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      sys.exit('no GPU')\
""",
        "SIGKILL": "the job failed before its first optimizer step: its process was killed by SIGKILL (signal 9)",
        "SIGTERM": "the job failed before its first optimizer step: its process was killed by SIGTERM (signal 15)",
        "SIGSEGV": "the job failed before its first optimizer step: its process was killed by SIGSEGV (signal 11)",
        "abort": "the job failed before its first optimizer step: its process was killed by SIGABRT (signal 6)",
        "KeyboardInterrupt": """\
the job failed before its first optimizer step: KeyboardInterrupt
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      raise KeyboardInterrupt\
""",
        "pytest.fail": """\
the job failed before its first optimizer step: Failed: not today
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      pytest.fail('not today')\
""",
        "pytest.exit": """\
the job failed before its first optimizer step: _pytest.outcomes.Exit: enough
  Traceback (most recent call last):
    File "/test_jobs.py", line N, in test_job
      pytest.exit('enough')\
""",
    }
)


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_does_not_end_well(bad: Bad, end: str) -> None:
    """It is an error of each of its items, told in one block; the number of steps shows how far it came."""
    message = bad(ENDS[end])
    bad.result.assert_outcomes(passed=1, errors=2)
    assert MESSAGES[end] == "\n".join(message.splitlines()[:4])


def test_an_error_is_shown_once(bad: Bad) -> None:
    """The other contracts of the same test name it and say where the traceback is."""
    bad("def inner():\n    raise ValueError('seven')\ninner()")
    shown = bad.result.stdout.str().partition("short test summary")[0]
    assert (1, 1) == (shown.count("in inner"), shown.count("the whole error is shown with the contract of this test"))
    assert 2 <= shown.count("before its first optimizer step: ValueError: seven")


@pytest.mark.parametrize("end", ["sys.exit(0)", "sys.exit()", "raise SystemExit"])
def test_a_job_that_exits_well(bad: Bad, end: str) -> None:
    """Scripts end with sys.exit(0); that is a good end."""
    bad(f"train(ckpt_job)\n{end}")
    bad.result.assert_outcomes(passed=3)


@pytest.mark.parametrize("call", ["pytest.skip('needs two GPUs')", "pytest.importorskip('no_such_module')"])
def test_a_job_that_skips_itself(bad: Bad, call: str) -> None:
    """Its items are skipped with its reason, at the test's own line."""
    bad(call, "-rs")
    bad.result.assert_outcomes(passed=1, skipped=2)
    bad.result.stdout.re_match_lines([r"SKIPPED \[2\] test_jobs.py:\d+: .*(needs two GPUs|no_such_module).*"])


HANGS: Final = {
    "a loop": "train(ckpt_job)\nwhile True: time.sleep(0.01)",
    "a thread": "train(ckpt_job)\nthreading.Thread(target=time.sleep, args=(98765,)).start()",
}


@pytest.mark.parametrize("hang", HANGS)
def test_a_job_that_hangs(bad: Bad, hang: str) -> None:
    """The message says where it stood, and how long it may take; a thread that is no daemon counts as the job."""
    message = bad(HANGS[hang], "--ckpt-timeout=2", "--ckpt-start-method=fork")
    bad.result.assert_outcomes(passed=1, errors=2)
    lines = message.splitlines()
    assert "the job failed after 4 optimizer steps: no end after 2 s" == lines[0]
    assert "  the job was ended; --ckpt-timeout sets how long a run may take" in lines
    assert any("in test_job" in line or "threading.py" in line for line in lines)


# -- jobs that end well and leave something behind --------------------------------------------------------------------

LEAVES: Final = {
    "a process in a session of its own": f"subprocess.Popen([sys.executable, '-c', 'import time; {SLEEPER}'], "
    "start_new_session=True)",
    "a daemon thread": "threading.Thread(target=time.sleep, args=(98765,), daemon=True).start()",
    "another directory": "os.chdir('/')",
    "closed streams": "sys.stdout.close()\nsys.stderr.close()\nos.close(1)\nos.close(2)",
    "megabytes": "for _ in range(20000): print('x' * 200)\nprint('y' * 4_000_000)",
    "bytes that are no text": "os.write(1, bytes(range(256)))",
    "a handler": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "an environment": "os.environ.clear()",
    "a file outside": "(ckpt_job.path.parent / 'log.txt').write_text('x')",
}


@pytest.mark.parametrize("what", LEAVES)
def test_what_a_job_leaves_does_no_harm(bad: Bad, what: str) -> None:
    """It is judged by its checkpoints; whatever it did to its process is gone with it."""
    bad(f"{LEAVES[what]}\ntrain(ckpt_job)")
    bad.result.assert_outcomes(passed=3)
    assert len(bad.result.stdout.str()) < 10_000


def test_megabytes_of_output_are_cut_where_they_are_shown(bad: Bad) -> None:
    """The end is what tells."""
    bad("for n in range(100_000): print('line', n)\nraise ValueError")
    shown = bad.result.stdout.str().partition("short test summary")[0]
    assert "line 99999" in shown
    assert len(shown) < 20_000


def test_a_job_that_deletes_its_directory(bad: Bad) -> None:
    """Nothing is on disk; that is a broken contract."""
    message = bad("import shutil\ntrain(ckpt_job)\nshutil.rmtree(ckpt_job.dir)")
    bad.result.assert_outcomes(passed=1, failed=2)
    assert (
        snapshot("""\
checkpoint contract broken: final_step
  training ended at step 4 and none of its checkpoints is left on disk
    trained    4 steps
    saved at   step 2
    on disk    none
  fix: save once more when training has ended, after the last step.
""")
        == message.split("  saves")[0]
    )


def test_a_job_that_saves_nothing(bad: Bad) -> None:
    """The message says so."""
    message = bad("train(ckpt_job, every=9, save_last=False)")
    bad.result.assert_outcomes(passed=1, failed=2)
    assert (
        snapshot("""\
checkpoint contract broken: final_step
  training ended at step 4 and no checkpoint was saved
    trained    4 steps
    saved at   none
    on disk    none
  fix: save once more when training has ended, after the last step.
""")
        == message.split("  saves")[0]
    )


def test_a_job_that_trains_nothing(bad: Bad) -> None:
    """Nothing can be said of the last step; no checkpoints are left, though two were promised."""
    message = bad("pass")
    bad.result.assert_outcomes(passed=1, failed=2)
    assert (
        snapshot("""\
checkpoint contract inconclusive: final_step
  could not be decided: no optimizer step was seen
  the job trained nothing, or with an optimizer that is not a
  torch.optim.Optimizer, or in another process.
  fix: call ckpt_job.step() after each optimizer step.
""")
        == message.split("  saves")[0]
    )


def test_a_job_that_saves_elsewhere(bad: Bad, tmp_path: Path) -> None:
    """Both messages name the files, and say what to build paths from."""
    message = bad(f"from pathlib import Path\ntrain(ckpt_job, folder=Path('{tmp_path}'))")
    bad.result.assert_outcomes(passed=1, failed=2)
    said = " ".join(message.split("  saves")[0].replace(str(tmp_path), "/elsewhere").split())
    assert (
        snapshot("""\
checkpoint contract broken: final_step training ended at step 4 and no checkpoint was saved trained 4 steps saved at none \
on disk none the job saved outside ckpt_job.dir: /elsewhere/step_2.pt, /elsewhere/step_4.pt. fix: build the paths of \
checkpoints from ckpt_job.dir.\
""")
        == said
    )
    where = "the job saved outside ckpt_job.dir: /elsewhere/step_2.pt, /elsewhere/step_4.pt."
    assert 2 <= " ".join(bad.result.stdout.str().replace(str(tmp_path), "/elsewhere").split()).count(where)


def test_a_job_that_ignores_resume_from(sessions: Sessions) -> None:
    """Whether it can be resumed was not tested, and the message says what to pass where."""
    sessions.write(
        """
        @pytest.mark.ckpt_resumable
        def test_job(ckpt_job):
            class Afresh:
                path, resume_from = ckpt_job.path, None
            train(Afresh())
        """
    )
    result = sessions()
    result.assert_outcomes(failed=1)
    lines = result.outlines
    start = lines.index("checkpoint contract inconclusive: resumable")
    assert snapshot("""\
checkpoint contract inconclusive: resumable
  could not be decided: the job never read ckpt_job.resume_from
  each experiment started from the beginning, so nothing was resumed.
  fix: pass ckpt_job.resume_from to the training code, such as
       trainer.train(resume_from_checkpoint=ckpt_job.resume_from), or call
       ckpt_job.train(trainer).\
""") == "\n".join(lines[start : next(n for n, line in enumerate(lines) if "  saves" in line)])


def test_a_job_that_asserts_how_many_steps_it_has_done(sessions: Sessions) -> None:
    """That is true of the undisturbed run only, and counts there only."""
    sessions.write(
        """
        @pytest.mark.ckpt_resumable
        def test_job(ckpt_job):
            assert 4 == train(ckpt_job)
        """
    )
    sessions().assert_outcomes(passed=1)


# -- a machine that misbehaves ---------------------------------------------------------------------------------------


def test_evidence_that_can_not_be_written(bad: Bad, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the job's process from being observed is told as the reason."""
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if b'"event":"look"' in data and "test_job" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    message = bad("train(ckpt_job)")
    bad.result.assert_outcomes(passed=1, errors=2)
    assert snapshot("""\
the job failed before its first optimizer step: it could not be observed: OSError: [Errno 28] No
space left on device\
""") == "\n".join(wrap(message, 100))


@pytest.mark.parametrize("size", ["8k", "24k", "48k", "56k"])
def test_a_full_disk(sessions: Sessions, tmp_path: Path, size: str) -> None:
    """Wherever it is noticed, nothing is judged, and the message says where room is needed."""
    if (
        subprocess.run(
            [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path], check=False
        ).returncode
        != 0
    ):
        pytest.skip("a file system of a few pages can't be mounted here: that takes root")
    try:
        sessions.write("@pytest.mark.ckpt_resumable\ndef test_job(ckpt_job): train(ckpt_job)")
        result = sessions("--basetemp", str(tmp_path / "base"))
    finally:
        subprocess.run([shutil.which("umount") or "umount", "--lazy", tmp_path], check=True)
    result.assert_outcomes(errors=1)
    result.stdout.re_match_lines(
        [
            r"the job (could not be run|failed .* optimizer steps?): .*",
            r"  the disk of .*/base/test_job0 is full, with \d+ bytes left; give it room, or another place with --basetemp",
        ],
        consecutive=True,
    )


@pytest.mark.skipif(os.name != "posix", reason="there is no such limit")
def test_a_limit_on_the_size_of_files(bad: Bad) -> None:
    """A job whose saves fail says so itself."""
    message = bad(
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\ntrain(ckpt_job)",
    )
    bad.result.assert_outcomes(passed=1, errors=2)
    assert (
        snapshot(
            "the job failed before its first optimizer step: it could not be observed: OSError: [Errno 27] File too large"
        )
        == message.splitlines()[0]
    )
