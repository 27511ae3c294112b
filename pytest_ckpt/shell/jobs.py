"""The session knows which contracts each test's job is asked for, has the job run once, and hands out its verdicts."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pytest_ckpt.errors import HarnessError
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.records.verdict import JobResult
from pytest_ckpt.settings import settings_key
from pytest_ckpt.shell.crash_states import keep_states, only_state
from pytest_ckpt.shell.failing import explained, failure, full_disk, kept, sections, unobserved
from pytest_ckpt.shell.known import frameworks_of
from pytest_ckpt.shell.progress import progress_line
from pytest_ckpt.shell.sweeps import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.experiments.combinations import Sweep
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.settings import Settings
    from pytest_ckpt.shell.marks import Asked
    from pytest_ckpt.shell.progress import ProgressLine


@dataclass(slots=True)
class JobSession:
    """All jobs of one pytest process.

    Attributes:
        folder: shared by the workers of a session, which read each other's results there; None where there are none.
        asked: contracts by test, for the tests that were selected.
        progress: shows how far a rehearsal has come; None where that is not to be seen.
    """

    folder: Path | None
    settings: Settings
    frameworks: Sequence[Framework]
    asked: Mapping[str, Mapping[str, Asked]] = field(default_factory=dict)
    progress: ProgressLine | None = None
    results: dict[str, JobResult] = field(default_factory=dict)
    _locks: dict[str, FileLock] = field(default_factory=dict)

    def known(self, test: str) -> JobResult | None:
        """Return what a test's job came to, if it has been run in this session.

        Takes the test's lock where it has not, so that no other worker runs it; `release` gives it back.
        """
        if test not in self.results and self.folder is not None:
            self._lock(self.folder, test)
            path = _file(self.folder, test, "json")
            if path.exists():
                self.results[test] = JobResult.from_json(json.loads(path.read_text(encoding="utf-8")))
                self.release(test)
        return self.results.get(test)

    def run(
        self, test: str, job: Job, body: Callable[..., object], *, reseed: bool = True, sweep: Sweep | None = None
    ) -> JobResult:
        """Run a test's job for all of its selected contracts and keep what it came to.

        Args:
            body: the job; called with the values of a combination where it is run with several.
            reseed: whether each process of the job is seeded; otherwise it keeps the random state it was forked with.
            sweep: the combinations with which it is to be run.
        """
        contracts = [only_state(asked.contract, self.settings.crash) for asked in self.asked[test].values()]
        if sweep is not None:
            from pytest_ckpt.shell.swept_jobs import SweptJob  # most jobs are run with one

            attempt = partial(self._attempt, test, job, body, contracts, reseed=reseed)
            result = SweptJob(test, [one.name for one in contracts], sweep, attempt, keep=self.settings.keep).run()
        else:
            result, lab = self._attempt(test, job, body, contracts, reseed=reseed)
            if not self.settings.keep and not result.kept_dirs:
                lab.close()
        self.results[test] = result
        if self.folder is not None:
            self._share(self.folder, result)
        return result

    def _attempt(  # noqa: PLR0913, PLR0917 - all that a job is run with
        self,
        test: str,
        job: Job,
        body: Callable[..., object],
        contracts: Sequence[Contract],
        settings: Mapping[str, object] | None = None,
        number: int = 0,
        *,
        reseed: bool,
    ) -> tuple[JobResult, Lab]:
        """Run a job with some settings, the how manieth it is said to be, and judge it."""
        started = time.monotonic()
        lab = self._lab(test, job, partial(body, **(settings or {})), settings or {}, reseed=reseed)
        if number:
            lab.folder = lab.folder.with_name(f"{lab.folder.name}{number}")
        try:
            return _judge(lab, test, contracts, started), lab
        except (HarnessError, OSError) as error:
            return JobResult(test=test, error=unobserved(error, lab), kept_dirs=kept(lab)), lab
        finally:
            if self.progress is not None:
                self.progress.erase()

    def _share(self, folder: Path, result: JobResult) -> None:
        """Let the other workers read it; where that can't be written, each of them runs the job for itself."""
        path = _file(folder, result.test, "json")
        temporary = path.with_suffix(".part")
        with suppress(OSError):
            temporary.write_text(json.dumps(result.to_json()), encoding="utf-8")
            temporary.replace(path)

    def release(self, test: str) -> None:
        """Let other workers run or read the test's job."""
        lock = self._locks.pop(test, None)
        if lock is not None:
            lock.release()

    def _lock(self, folder: Path, test: str) -> None:
        if test not in self._locks:
            lock = FileLock(_file(folder, test, "lock"))
            lock.acquire()
            self._locks[test] = lock

    def _lab(
        self, test: str, job: Job, body: Callable[[], object], settings: Mapping[str, object], *, reseed: bool
    ) -> Lab:
        return Lab(
            job=job,
            body=body,
            folder=job.path.with_name(f"{job.path.name}-evidence"),
            seed_text=test,
            frameworks=self.frameworks,
            settings=LabSettings(
                timeout=self.settings.timeout,
                start_method=self.settings.start_method,
                processes=self.settings.processes,
                waiting=self._waiting(test, settings),
                budget=self.settings.budget,
            ),
            skips=(pytest.skip.Exception,),
            reseed=reseed,
        )

    def _waiting(self, test: str, settings: Mapping[str, object]) -> Callable[[Path], None] | None:
        if self.progress is None:
            return None
        name = test.rpartition("::")[2]
        return partial(self.progress.look, f"{name} with {text(settings)}" if settings else name)


def _file(folder: Path, test: str, suffix: str) -> Path:
    """Return the file by which workers share what they know of a test."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.blake2b(test.encode(), digest_size=8).hexdigest()}.{suffix}"


def _judge(lab: Lab, test: str, contracts: Sequence[Contract], started: float) -> JobResult:
    """Run what the contracts need; a job that does not run by itself has no verdicts."""
    baseline = lab.run()
    outcome = baseline.outcome
    result = JobResult(test=test, frameworks=_frameworks(baseline))
    if outcome.status == "skipped":
        return replace(result, skipped=outcome.message)
    if not outcome.ok:
        return replace(result, error=explained(baseline, lab), sections=sections(lab), kept_dirs=kept(lab))
    verdicts = lab.judge(contracts)
    failed = [run for run in lab.runs.values() if not run.outcome.ok]
    if failed and (why := full_disk(lab)):  # what a run could not write says nothing about the job
        return replace(result, error="\n".join([failure(failed[0]), why]), sections=sections(lab), kept_dirs=kept(lab))
    lab.leave()
    broken = not all(verdict.ok for verdict in verdicts)
    return replace(
        result,
        verdicts=tuple(verdicts),
        timeline=lab.timeline,
        experiments=tuple((run.experiment.title, f"{run.outcome.seconds:.2f}") for run in lab.runs.values()),
        sections=sections(lab) if broken else (),
        kept_dirs=(
            f"{lab.folder}: the runs' journals and copies of their checkpoints",
            *keep_states(lab, test, verdicts),
        )
        if broken
        else (),
        seconds=time.monotonic() - started,
    )


def _frameworks(run: RunRecord) -> tuple[str, ...]:
    return tuple(f"{facts.name} {facts.version}".strip() for facts in run.frameworks)


def job_session(config: pytest.Config, asked: Mapping[str, Mapping[str, Asked]]) -> JobSession:
    """Return what runs the jobs of a session, for the contracts that were selected of each test."""
    return JobSession(
        folder=shared_folder(config),
        settings=config.stash[settings_key],
        frameworks=frameworks_of(config),
        asked=asked,
        progress=progress_line(config),
    )


def missing_torch() -> str:
    """Return why no job can be run here, empty if torch is there."""
    if importlib.util.find_spec("torch") is not None:
        return ""
    return "pytest-ckpt runs training jobs with torch, and torch is not installed here; pip install pytest-ckpt[torch]"


@contextmanager
def only_new_objects() -> Iterator[None]:
    """Hide all objects made so far from searches through the garbage collector, so that these find the test's own only."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def shared_folder(config: pytest.Config) -> Path | None:
    """Return a folder that the workers of a session share; None in a process that has no others beside it."""
    if not hasattr(config, "workerinput"):
        return None
    return Path(config.getoption("basetemp")).parent / "ckpt-verdicts"
