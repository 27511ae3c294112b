"""Lightning writes to a temporary file and moves it: at one instant on one file system, and byte by byte across two."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ckpt.contracts.crashing import CrashSafe
from pytest_ckpt.crashes.stopping import why_not

pytest.importorskip("lightning.pytorch")

from jobs import pl

if TYPE_CHECKING:
    from conftest import Judge
    from pytest_ckpt.runs.job import Job

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be traced here"),
]

#: A file system in memory, which is another one than that of the job.
ELSEWHERE = Path("/dev/shm")  # noqa: S108 - nothing predictable is made there


def train(job: Job) -> None:
    """Save every second step, and the newest under a name of its own as well."""
    saving = pl.checkpoint("lightning.pytorch", dirpath=job.dir, every_n_train_steps=2, save_last=True)
    pl.fit("lightning.pytorch", job, saving, validation=pl.loader(), max_epochs=-1, max_steps=6)


def test_on_one_file_system(judge: Judge) -> None:
    """No kill costs anything; that it may elsewhere is noted."""
    verdict = judge(train, CrashSafe())["crash_safe"]
    assert "held" == verdict.status, verdict
    (note,) = verdict.notes
    assert "a move is a copy, and a kill leaves a part of the file" in note


@pytest.mark.skipif(not ELSEWHERE.is_dir(), reason="there is no other file system at hand")
def test_across_two_file_systems(judge: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the temporary directory is on another one, a move copies, and a kill leaves a part of the file."""
    if os.stat(ELSEWHERE).st_dev == os.stat(tmp_path).st_dev:  # noqa: PTH116 - beside the other
        pytest.skip("they are one file system here")
    with tempfile.TemporaryDirectory(dir=ELSEWHERE) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        verdict = judge(train, CrashSafe())["crash_safe"]
    assert "violated" == verdict.status, verdict
    assert "a restart fails" in verdict.sentence or "no whole checkpoint" in verdict.sentence
