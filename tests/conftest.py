"""What holds for every test of the suite: the same run, whatever the shell and the installed plugins say."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from pytest_ckpt import frameworks
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.runs.job import Job
from pytest_ckpt.shell.jobs import only_new_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Verdict


settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # how fast examples are made and run tells of the machine's load


@pytest.fixture(autouse=True)
def _inner_runs_are_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep pytest-randomly, and whatever the shell asks of pytest, out of the runs that pytester starts."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly")
    monkeypatch.delenv("PYTEST_PLUGINS", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)


class Judge:
    """Runs a job for some contracts as the plugin does; `lab` is there afterwards for a closer look."""

    def __init__(self, folder: Path, seed_text: str) -> None:
        self._folder = folder
        self._seed_text = seed_text
        self._jobs = 0
        self._verdicts: list[Verdict] = []
        self.lab: Lab

    def __call__(
        self,
        train: Callable[[Job], object],
        *contracts: Contract,
        timeout: float = 120.0,
        start_method: str = "auto",
        processes: int = 1,
    ) -> dict[str, Verdict]:
        """Return the verdict of each contract, by its name."""
        directory = self.next_directory
        self._jobs += 1
        job = Job(directory, frameworks=frameworks.builtin())
        self.lab = Lab(
            job=job,
            body=partial(train, job),
            folder=self._folder / f"evidence{self._jobs}",
            seed_text=self._seed_text,
            frameworks=frameworks.builtin(),
            settings=LabSettings(timeout=timeout, start_method=start_method, processes=processes),
        )
        baseline = self.lab.run()
        if not baseline.outcome.ok:
            pytest.fail(f"the job failed: {baseline.outcome.message}\n{baseline.outcome.traceback}")
        self._verdicts = self.lab.judge(contracts)
        return {verdict.contract: verdict for verdict in self._verdicts}

    def __str__(self) -> str:
        """Tell what was judged last and what was seen, for the message of an assertion that fails once in a thousand runs."""
        run = self.baseline
        looks = [
            (look.step, look.phase, look.at_rest, [(file.path, file.size) for file in look.tree.entries])
            for look in run.looks
        ]
        seen = [(c.identity, c.saved_after, c.gone_after, c.files, c.content, c.problem) for c in run.written]
        return "\n".join(map(repr, (*self._verdicts, *looks, *run.saves, *seen, *run.notes)))

    @property
    def next_directory(self) -> Path:
        """The directory that the next job will be given; what is laid there before, the job starts from."""
        directory = self._folder / f"job{self._jobs + 1}"
        directory.mkdir(exist_ok=True)
        return directory

    @property
    def baseline(self) -> RunRecord:
        """The undisturbed run."""
        return self.lab.run()


@pytest.fixture
def judge(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Judge]:
    """Judges a job: `judge(train, FinalStep(), Resumable())["resumable"].status`."""
    with only_new_objects():
        yield Judge(tmp_path.resolve(), request.node.nodeid)
