"""The session knows which contracts each test's job is asked for, has the job run once, and hands out its verdicts."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from filelock import FileLock

from pytest_ckpt.errors import ContractViolation, HarnessError
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.records.verdict import JobResult, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Verdict
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.settings import Settings
    from pytest_ckpt.shell.marks import Asked

#: Characters of a run's captured output that a report shows.
_SHOWN: Final = 4000
#: Free bytes with which a disk counts as full.
_ROOM: Final = 1 << 16
#: What `pytest.fail` raises; pytest gives it no other public name.
_Failed: Any = pytest.fail.Exception


@dataclass(slots=True)
class JobSession:
    """All jobs of one pytest process.

    Attributes:
        folder: shared by the workers of a session, which read each other's results there; None where there are none.
        asked: contracts by test, for the tests that were selected.
    """

    folder: Path | None
    settings: Settings
    frameworks: Sequence[Framework]
    asked: Mapping[str, Mapping[str, Asked]] = field(default_factory=dict)
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

    def run(self, test: str, job: Job, body: Callable[[], object], *, reseed: bool = True) -> JobResult:
        """Run a test's job for all of its selected contracts and keep what it came to.

        Args:
            reseed: whether each process of the job is seeded; otherwise it keeps the random state it was forked with.
        """
        started = time.monotonic()
        lab = self._lab(test, job, body, reseed=reseed)
        contracts = [asked.contract for asked in self.asked[test].values()]
        try:
            result = _judge(lab, test, contracts, started)
        except (HarnessError, OSError) as error:
            result = JobResult(test=test, error=_unobserved(error, lab), kept_dirs=_kept(lab))
        if not self.settings.keep and not result.kept_dirs:
            lab.close()
        self.results[test] = result
        if self.folder is not None:
            self._share(self.folder, result)
        return result

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

    def _lab(self, test: str, job: Job, body: Callable[[], object], *, reseed: bool) -> Lab:
        return Lab(
            job=job,
            body=body,
            folder=job.path.with_name(f"{job.path.name}-evidence"),
            seed_text=test,
            frameworks=self.frameworks,
            settings=LabSettings(timeout=self.settings.timeout, start_method=self.settings.start_method),
            skips=(pytest.skip.Exception,),
            reseed=reseed,
        )


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
        return replace(result, error=_failed(baseline, lab), sections=_sections(lab), kept_dirs=_kept(lab))
    verdicts = lab.judge(contracts)
    failed = [run for run in lab.runs.values() if not run.outcome.ok]
    if failed and (why := _full_disk(lab)):  # what a run could not write says nothing about the job
        return replace(
            result, error="\n".join([_failure(failed[0]), why]), sections=_sections(lab), kept_dirs=_kept(lab)
        )
    lab.leave()
    broken = any(verdict.status in {"violated", "inconclusive"} for verdict in verdicts)
    return replace(
        result,
        verdicts=tuple(verdicts),
        timeline=Timeline(
            steps=baseline.last_step,
            saved=baseline.saved_steps,
            kept=tuple(sorted({baseline.step_of(c) for c in baseline.kept if not c.foreign})),
        ),
        experiments=tuple((run.experiment.title, f"{run.outcome.seconds:.2f}") for run in lab.runs.values()),
        sections=_sections(lab) if broken else (),
        kept_dirs=(f"{lab.folder}: the runs' journals and copies of their checkpoints",) if broken else (),
        seconds=time.monotonic() - started,
    )


def _frameworks(run: RunRecord) -> tuple[str, ...]:
    return tuple(f"{facts.name} {facts.version}".strip() for facts in run.frameworks)


def _failed(run: RunRecord, lab: Lab) -> str:
    """Say how the baseline failed: nothing can be said about the checkpoints of a job that does not run."""
    outcome = run.outcome
    lines = [_failure(run), *filter(None, [_full_disk(lab)])]
    lines += [f"  {line}" for line in outcome.traceback.rstrip().splitlines()]
    if outcome.status == "hung":
        lines.append("  the job was ended; --ckpt-timeout sets how long a run may take")
    lines += [f"  left a process behind, which was ended: {process}" for process in outcome.leftovers]
    return "\n".join(lines)


def _failure(run: RunRecord) -> str:
    how = next(iter(run.outcome.message.splitlines()), run.outcome.status)
    title = "" if run.experiment.kind == "baseline" else f" in the {run.experiment.title}"
    return f"the job failed{title} {_when(run.last_step)}: {how}"


def _full_disk(lab: Lab) -> str:
    """Say that there is no room for runs and their evidence; empty if there is."""
    free = shutil.disk_usage(lab.folder.parent).free
    if free >= _ROOM:
        return ""
    return f"  the disk of {lab.folder.parent} is full, with {free} bytes left; give it room, or another place with --basetemp"


def _when(steps: int) -> str:
    if steps == 0:
        return "before its first optimizer step"
    return f"after {steps} optimizer step{'' if steps == 1 else 's'}"


def _unobserved(error: HarnessError | OSError, lab: Lab) -> str:
    """Say why the job's runs could not be carried out or observed: the reason is not in the job."""
    if isinstance(error, HarnessError):
        return f"the job could not be run: {error}"
    why = (
        _full_disk(lab)
        or f"  its runs and their evidence need {lab.folder.parent}; see to it that it can be written to"
    )
    return f"the job could not be run: {error}\n{why}"


def _kept(lab: Lab) -> tuple[str, ...]:
    return (f"{lab.folder}: journals and output of the runs",) if lab.folder.exists() else ()


def _sections(lab: Lab) -> tuple[tuple[str, ...], ...]:
    """Return the captured output of the baseline and of runs that failed."""
    runs = [run for run in lab.runs.values() if run.experiment.kind == "baseline" or not run.outcome.ok]
    return tuple(
        (f"ckpt {run.experiment.title} {title}", _shown(text)) for run in runs for title, text in run.sections.items()
    )


def _shown(text: str) -> str:
    """Return the end of a text, of progress bars only their last state."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    text = "\n".join(line for line in lines if line.strip())
    return text if len(text) <= _SHOWN else f"[...]\n{text[-_SHOWN:]}"


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


def raise_if_failed(result: JobResult) -> None:
    """Raise what keeps a job's contracts from being judged.

    Raises:
        HarnessError: the job did not run.
        pytest.skip.Exception: the job skipped itself.
    """
    if result.skipped:
        pytest.skip(result.skipped)
    if result.error:
        raise JobFailure(result.error)


class JobFailure(HarnessError, _Failed):  # type: ignore[misc]
    """A job that does not run, shown by pytest as its message alone."""

    def __init__(self, message: str) -> None:
        _Failed.__init__(self, message, pytrace=False)

    def __str__(self) -> str:
        return str(self.msg)


class ContractFailure(ContractViolation, _Failed):  # type: ignore[misc]
    """A broken or undecided contract, shown by pytest as its message alone: the traceback would be ours."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        _Failed.__init__(self, message, pytrace=False)
        self.verdict = verdict

    def __str__(self) -> str:
        return str(self.msg)


# Short names in pytest's summary, which prints the module of every exception that is not built in.
for _kind, _name in ((ContractFailure, "ContractViolation"), (JobFailure, "HarnessError")):
    _kind.__module__, _kind.__qualname__ = "builtins", _name


def conclude(result: JobResult, asked: Asked, nodeid: str) -> None:
    """End an item as its contract's verdict says.

    Raises:
        ContractFailure: the contract is broken, or it was marked and could not be decided.
        pytest.skip.Exception: it does not apply, or only the default set asked for it and it could not be decided.
        HarnessError: the job was run without this contract.
    """
    verdict = result.verdict_of(asked.contract.name)
    if verdict is None:
        known = ", ".join(v.contract for v in result.verdicts)
        message = f"no verdict on {asked.contract.name} of {result.test}; its job was run for {known}"
        raise HarnessError(message)
    if verdict.status == "not_applicable":
        pytest.skip(f"not applicable: {verdict.sentence}")
    if verdict.status == "inconclusive" and not asked.marked:
        pytest.skip(f"inconclusive: {verdict.sentence}")
    if verdict.status != "held":
        from pytest_ckpt.report.text import explain  # needed for failures only

        raise ContractFailure(explain(verdict, result, nodeid), verdict)


def rehearse_in_process(item: pytest.Function, job: Job) -> None:
    """Call a test's job in this process, where a debugger can stop in it, and leave its directory as it was."""
    before = sorted(job.path.iterdir())
    item.ihook.pytest_pyfunc_call(pyfuncitem=item)  # as pytest calls a test: that is where --trace steps in
    for path in set(job.path.iterdir()) - set(before):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def without_breakpoints(body: Callable[[], object]) -> object:
    """Call a job that the debugger has been through already; runs in the job's process."""
    from pytest_ckpt.runs.spawn import replace_debugger  # only where a debugger was asked for

    replace_debugger(lambda *_, **__: None)
    return body()
