"""Several runs at a time, each with its own directory at the path of all: faster, and the verdicts are the same."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.loading import Loadable
from pytest_ckpt.contracts.moving import Relocatable
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.records.experiment import resume
from pytest_ckpt.runs import mounts
from pytest_ckpt.runs.supervise import first_to_end, run_forked, start_forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Judge
    from pytest_ckpt import Job

needs_mounts = pytest.mark.skipif(
    "not __import__('pytest_ckpt.runs.mounts').runs.mounts.available()",
    reason="mount namespaces are not allowed here, so that runs can't go on side by side",
)


def train(job: Job, *, before: Callable[[Job], None] = lambda _: None, forget: tuple[str, ...] = ()) -> None:
    """Train six steps and save every second, after something has happened."""
    before(job)
    model = plain.network()
    update = torch.optim.AdamW(model.parameters(), lr=0.05)
    for step in plain.steps(plain.Saver(job, forget=forget, model=model, optimizer=update), 6, 2):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()


def wait_for(paths: Callable[[], list[Path]], count: int, *, seconds: float = 20.0) -> bool:
    """Wait until so many files are there; say whether they came."""
    deadline = time.monotonic() + seconds
    while len(paths()) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(paths()) >= count


def take_alone(path: Path) -> bool:
    """Take something that only one process can have until it ends; say whether it was free."""
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


# -- the verdicts ------------------------------------------------------------------------------------------------------


@needs_mounts
def test_runs_go_on_at_the_same_time(judge: Judge, tmp_path: Path) -> None:
    """Two resumes that wait for each other both get to their end, and both saw their own checkpoint at the common path."""

    def meet(job: Job) -> None:
        if job.resume_from is not None:
            assert Path(job.resume_from).exists()
            (tmp_path / f"{os.getpid()}.there").touch()
            assert wait_for(lambda: list(tmp_path.glob("*.there")), 2)

    verdict = judge(partial(train, before=meet), Resumable(), processes=2)["resumable"]
    assert verdict.status == "held", verdict
    assert {"held", "finished", "stopped"} >= {run.outcome.status for run in judge.lab.runs.values()}


@needs_mounts
def test_nothing_is_left_of_the_directories(judge: Judge) -> None:
    """The directory of each run goes with its end, and the job's own one is as the baseline left it."""
    assert judge(train, Resumable(), processes=2)["resumable"].status == "held"
    judge.lab.leave()
    assert {"step_2.pt", "step_4.pt", "step_6.pt"} == {path.name for path in judge.lab.job.path.iterdir()}
    assert [] == list(judge.lab.folder.glob("*/dir"))


@needs_mounts
def test_a_broken_job_is_told_of_as_if_it_had_run_alone(judge: Judge) -> None:
    """Both ways come to the same verdict, word for word."""
    broken = partial(train, forget=("optimizer",))
    assert judge(broken, Resumable())["resumable"] == judge(broken, Resumable(), processes=3)["resumable"]


@needs_mounts
def test_jobs_that_cannot_bear_company_are_run_alone(judge: Judge, tmp_path: Path) -> None:
    """A job that needs something which only one process may have, as a port, is no broken job."""

    def take(_: Job) -> None:
        assert take_alone(tmp_path / "port")
        time.sleep(0.2)

    assert judge(partial(train, before=take), Resumable(), processes=2)["resumable"].status == "held"


@needs_mounts
def test_jobs_that_are_misled_by_company_are_run_alone(judge: Judge, tmp_path: Path) -> None:
    """What goes wrong without an error, because of a file outside of the directory, is not believed either."""

    def disturb(_: Job) -> None:
        alone = take_alone(tmp_path / "shared")
        time.sleep(0.2)
        if not alone:
            right = plain.batch
            plain.batch = lambda step: right(step + 1)

    assert judge(partial(train, before=disturb), Resumable(), processes=2)["resumable"].status == "held"


@needs_mounts
def test_a_job_that_removes_its_directory(judge: Judge) -> None:
    """A directory that is shown somewhere can't be removed there; alone it can."""

    def start_clean(job: Job) -> None:
        if job.resume_from is None:
            return
        kept = Path(job.resume_from).read_bytes()
        shutil.rmtree(job.path)
        job.path.mkdir()
        Path(job.resume_from).write_bytes(kept)

    assert judge(partial(train, before=start_clean), Resumable(), processes=2)["resumable"].status == "held"


@needs_mounts
def test_relative_paths(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that stands in its directory writes into the one of its own run."""
    monkeypatch.chdir(judge.next_directory)

    def note(job: Job) -> None:
        Path("here.txt").write_text(str(job.resume_from), encoding="utf-8")
        assert (job.path / "here.txt").read_text(encoding="utf-8") == str(job.resume_from)

    assert judge(partial(train, before=note), Resumable(), processes=2)["resumable"].status == "held"
    judge.lab.leave()
    assert Path("here.txt").read_text(encoding="utf-8") == "None"


@needs_mounts
def test_a_moved_directory_beside_others(judge: Judge) -> None:
    """Runs elsewhere than at the common path are made alone, with the others of the same job."""
    verdicts = judge(train, Resumable(), Relocatable(), Loadable(), processes=2)
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, verdicts


def test_where_it_is_not_allowed(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run after the other, where the kernel or a container forbids mounts."""

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(mounts, "available", lambda: False)
    monkeypatch.setattr(mounts, "show", forbidden)
    assert judge(train, Resumable(), processes=2)["resumable"].status == "held"


def test_the_trial_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may not mount is found out by trying."""

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(mounts, "show", forbidden)
    assert not mounts.available.__wrapped__()


@needs_mounts
def test_without_the_right_to_mount(tmp_path: Path) -> None:
    """Whoever may not mount gets the right in a user namespace, and stays the user that it was."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").touch()
    allowed = mounts._call  # noqa: SLF001 - what a user without rights meets

    def body() -> int:
        def call(name: str, *arguments: object) -> None:
            if (name, *arguments) == ("unshare", mounts._CLONE_NEWNS):  # noqa: SLF001
                raise PermissionError
            allowed(name, *arguments)

        mounts._call = call  # noqa: SLF001
        before = os.getuid(), os.getgid()
        mounts.show(source, at=target)
        return 0 if (target / "file").exists() and before == (os.getuid(), os.getgid()) else 1

    ended = run_forked(body, timeout=20, stdout=tmp_path / "out", stderr=tmp_path / "err")
    assert ended.exit_code == 0, (tmp_path / "err").read_text()
    assert not (target / "file").exists()


# -- the processes -----------------------------------------------------------------------------------------------------


def sleeping(folder: Path, name: str, seconds: float) -> Callable[[], int]:
    """Return a body that notes its process and sleeps."""

    def body() -> int:
        (folder / f"{name}.pid").write_text(str(os.getpid()))
        time.sleep(seconds)
        return 0

    return body


@pytest.mark.skipif(sys.platform != "linux", reason="supervisors need Linux")
def test_the_first_to_end(tmp_path: Path) -> None:
    """Of several runs the one that is done is returned, whichever was started first."""
    runs = [
        start_forked(sleeping(tmp_path, name, seconds), timeout=30, stdout=tmp_path / "out", stderr=tmp_path / "err")
        for name, seconds in (("slow", 20.0), ("quick", 0.0))
    ]
    try:
        assert first_to_end(runs) is runs[1]
        assert runs[1].end().exit_code == 0
    finally:
        for run in runs:
            run.close()
    assert not Path("/proc", (tmp_path / "slow.pid").read_text()).exists()


@needs_mounts
def test_nothing_goes_on_after_an_interruption(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while several runs go on ends all of them."""

    def linger(job: Job) -> None:
        if job.resume_from is not None:
            (tmp_path / f"{os.getpid()}.pid").touch()
            time.sleep(60)

    pids: list[Path] = []

    def interrupted(*_: object) -> Iterator[object]:
        assert wait_for(lambda: list(tmp_path.glob("*.pid")), 2)
        pids.extend(tmp_path.glob("*.pid"))
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_ckpt.runs.launch.first_to_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        judge(partial(train, before=linger), Resumable(), processes=2)
    assert 2 == len(pids)
    assert not any(Path("/proc", path.stem).exists() for path in pids)
    assert resume("step_2.pt") not in judge.lab.runs
