"""The fixtures: the job of a marked test, the engine for tests that assert by hand, and tiny models and data."""

from __future__ import annotations

from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_ckpt.errors import HarnessError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.experiment import Seeds
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.runs.job import Job

#: Tracebacks of what we raise on purpose end in the test; those of our own faults show where we made them.
_ENDS_AT_THE_CALL: Final = methodcaller("errisinstance", (HarnessError, InvalidArgument, pytest.skip.Exception))


@pytest.fixture
def ckpt_job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job under test: where to write (`dir`) and where to resume from (`resume_from`)."""
    from pytest_ckpt.shell.known import is_contract_item

    if not is_contract_item(request.node):
        message = (
            f"{request.node.nodeid} uses ckpt_job and asks for no contract: mark it, such as with "
            "@pytest.mark.ckpt_final_step; a test that asserts by hand uses ckpt_run"
        )
        pytest.fail(message, pytrace=False)
    return _new_job(request, tmp_path_factory, request.node.originalname or request.node.name)


@pytest.fixture
def ckpt_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CkptRun]:
    """Runs a job under observation and returns its record, for tests that assert by hand."""
    from pytest_ckpt.shell.jobs import missing_torch, only_new_objects

    if why := missing_torch():
        pytest.skip(why)
    run = CkptRun(partial(_new_job, request, tmp_path_factory), request)
    with only_new_objects():
        yield run
    run.close()


class CkptRun:
    """The engine behind the contracts: call it with a job, then resume what it saved."""

    def __init__(self, new_job: Callable[[str], Job], request: pytest.FixtureRequest) -> None:
        self._new_job = new_job
        self._request = request
        self._labs: list[Lab] = []

    def __repr__(self) -> str:
        return "<CkptRun>"  # hypothesis shows it in what it has found

    def __call__(self, train: Callable[[Job], object], *, check: bool = True) -> RunRecord:
        """Run `train(job)` undisturbed and return what was seen.

        Args:
            train: the training code; it writes below `job.dir` and resumes from `job.resume_from`.
            check: raise if the job does not end well.

        Raises:
            HarnessError: the job did not end well, and `check` is set.
        """
        __tracebackhide__ = _ENDS_AT_THE_CALL
        from pytest_ckpt.lab import Lab, LabSettings
        from pytest_ckpt.settings import settings_key
        from pytest_ckpt.shell.known import frameworks_of

        config = self._request.config
        settings = config.stash[settings_key]
        job = self._new_job(f"{self._request.node.name}-run{len(self._labs)}")
        lab = Lab(
            job=job,
            body=partial(train, job),
            folder=job.path.with_name(f"{job.path.name}-evidence"),
            seed_text=self._request.node.nodeid,
            frameworks=frameworks_of(config),
            settings=LabSettings(timeout=settings.timeout, start_method=settings.start_method),
            skips=(pytest.skip.Exception,),
        )
        self._labs.append(lab)
        run = lab.run()
        lab.leave()
        return _checked(run) if check else run

    def close(self) -> None:
        """Remove the evidence of all runs, unless `--ckpt-keep` asks for it."""
        from pytest_ckpt.settings import settings_key

        for lab in self._labs:
            if not self._request.config.stash[settings_key].keep:
                lab.close()

    def resume(
        self,
        run: RunRecord,
        *,
        step: int | None = None,
        checkpoint: str | None = None,
        seeds: Seeds = "fresh",
        check: bool = True,
    ) -> RunRecord:
        """Resume a run from one of its checkpoints, in a fresh process, and return what was seen.

        Args:
            run: what a call of this fixture returned.
            step: the step whose checkpoint to resume from.
            checkpoint: its path relative to `job.dir`, instead of the step.
            seeds: `fresh` seeds the process unlike the first one, `baseline` alike.
            check: raise if the job does not end well.

        Raises:
            InvalidArgument: there is no such checkpoint, or `run` is of another test.
            HarnessError: the job did not end well, and `check` is set.
        """
        __tracebackhide__ = _ENDS_AT_THE_CALL
        from pytest_ckpt.records.experiment import BASELINE, resume

        lab = next((lab for lab in self._labs if lab.runs.get(BASELINE) is run), None)
        if lab is None:
            message = "ckpt_run.resume needs a record that ckpt_run(...) returned in this test"
            raise InvalidArgument(message)
        resumed = lab.run(resume(_identity(run, step, checkpoint), seeds=seeds))
        return _checked(resumed) if check else resumed


def _identity(run: RunRecord, step: int | None, checkpoint: str | None) -> str:
    """Return the identity of the checkpoint that is meant."""
    __tracebackhide__ = _ENDS_AT_THE_CALL
    saved = ", ".join(f"{c.path} (step {run.step_of(c)})" for c in run.written) or "none"
    if (step is None) == (checkpoint is None):
        message = f"ckpt_run.resume needs either step= or checkpoint=; saved: {saved}"
        raise InvalidArgument(message)
    found = [c for c in run.written if checkpoint in {None, c.path, c.identity} and step in {None, run.step_of(c)}]
    if not found:
        which = f"of step {step}" if checkpoint is None else repr(checkpoint)
        message = f"ckpt_run.resume finds no checkpoint {which}; saved: {saved}"
        raise InvalidArgument(message)
    return found[-1].identity


def _checked(run: RunRecord) -> RunRecord:
    __tracebackhide__ = _ENDS_AT_THE_CALL
    if not run.outcome.ok:
        if run.outcome.status == "skipped":
            pytest.skip(run.outcome.message)
        message = f"the job did not end well: {run.outcome.message}\n{run.outcome.traceback}"
        raise HarnessError(message)
    return run


def _new_job(request: pytest.FixtureRequest, factory: pytest.TempPathFactory, name: str) -> Job:
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.shell.known import frameworks_of

    directory = factory.mktemp("".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]) / "job"
    directory.mkdir()
    config = request.config
    return Job(Path(directory).resolve(), device=device_of(config), frameworks=frameworks_of(config))


def device_of(config: pytest.Config) -> str:
    """Return the device to train on; skip where it was asked for and is not there."""
    from pytest_ckpt.settings import settings_key

    device = config.stash[settings_key].device
    if device == "cpu":
        return device
    available = _has_cuda()
    if device == "cuda" and not available:
        pytest.skip("--ckpt-device cuda: torch finds no CUDA device here")
    return "cuda" if available else "cpu"


def _has_cuda() -> bool:
    """Say whether there is a CUDA device, without initialising CUDA, after which a process can't be forked."""
    import torch

    return torch.cuda.device_count() > 0


@pytest.fixture
def tiny_causal_lm(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Builds a tiny causal language model: `tiny_causal_lm(arch="llama", seed=0, **config)`."""
    return _tiny(request, "causal_lm")


@pytest.fixture
def tiny_classifier(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Builds a tiny sequence classifier: `tiny_classifier(arch="bert", num_labels=2, seed=0, **config)`."""
    return _tiny(request, "classifier")


@pytest.fixture
def tiny_torch_model(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Builds a tiny plain torch module: `tiny_torch_model(dropout=0.1, batch_norm=True, tied=False, seed=0)`."""
    return _tiny(request, "torch_model")


@pytest.fixture
def tiny_text() -> Callable[..., Any]:
    """Builds a small data set of token sequences: `tiny_text(samples=32, length=16, seed=0)`."""
    return _data("text")


@pytest.fixture
def tiny_vectors() -> Callable[..., Any]:
    """Builds a small data set of vectors and classes: `tiny_vectors(samples=32, features=8, classes=4, seed=0)`."""
    return _data("vectors")


@pytest.fixture
def tiny_tokenizer() -> Callable[..., Any]:
    """Builds a tokenizer without a download: `tiny_tokenizer(vocab_size=64)`."""
    return _data("tokenizer")


def _tiny(request: pytest.FixtureRequest, name: str) -> Callable[..., Any]:
    from pytest_ckpt import tiny

    return partial(getattr(tiny, name), device=device_of(request.config))


def _data(name: str) -> Callable[..., Any]:
    from pytest_ckpt import tiny

    builder: Callable[..., Any] = getattr(tiny, name)
    return builder
