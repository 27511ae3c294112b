"""The processes that train together are found, however they were started, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_ckpt.crashes import rank_in
from pytest_ckpt.runs.together import training_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of processes")

#: A rank, and a worker of its that has its environment; each tells its number by the name of a file.
_RANK = """
import os, pathlib, subprocess, sys, time
pathlib.Path(sys.argv[1], f"rank{os.environ['RANK']}-{os.getpid()}").touch()
subprocess.run([sys.executable, "-c", "import sys; sys.stdin.read()"])
"""
_BOUND = 60.0


def test_ranks_that_a_launcher_starts(tmp_path: Path) -> None:
    """Not the launcher, nor what the ranks start; the one that is asked about comes last."""
    pytest.importorskip("torch")
    script = tmp_path / "rank.py"
    script.write_text(_RANK, encoding="utf-8")
    seen = tmp_path / "seen"
    seen.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    with _started([*launcher, str(script), str(seen)]) as launched:
        until = time.monotonic() + _BOUND
        while len(list(seen.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        first, second = (int(path.name.split("-")[1]) for path in sorted(seen.iterdir()))
        time.sleep(0.3)  # for the workers to start
        assert [second, first] == training_with(first, launched.pid, tmp_path)
        assert [first, second] == training_with(second, os.getpid(), tmp_path)


def test_ranks_that_have_told(tmp_path: Path) -> None:
    """As those do that are forked, whose environment tells nothing."""
    with _started(["sleep", "60"]) as told, _started(["sleep", "60"]):
        rank_in(tmp_path, told.pid).touch()
        assert [told.pid, os.getpid()] == training_with(os.getpid(), os.getpid(), tmp_path)


def test_a_job_that_trains_alone(tmp_path: Path) -> None:
    """It is by itself, whatever it starts."""
    with _started(["sleep", "60"]):
        assert [os.getpid()] == training_with(os.getpid(), os.getpid(), tmp_path)


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
