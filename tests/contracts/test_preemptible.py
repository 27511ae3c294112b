"""Signals in the midst of training: jobs that die, that pass them over or save too little, and jobs that leave as they should."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from jobs import hf, pl, plain, saves
from pytest_ckpt.contracts.preempting import Preemptible
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job
    from pytest_ckpt.records.verdict import Verdict

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that a process can handle")

#: What a job without evaluations and loaders has.
PLAIN = ("forward", "accumulation", "step")


def job(handler: str, *, last: int = 10, every: int = 3, code: int = 143) -> Callable[[Job], None]:  # noqa: C901 - one loop, told in many ways
    """Return a loop of two batches a step that does at SIGTERM what `handler` says."""

    def train(job: Job) -> None:  # noqa: C901 - see above
        torch.manual_seed(0)
        model = plain.network(dropout=0.0)
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        told: list[int] = []
        done = 0

        def save() -> None:
            state = {"model": model.state_dict(), "optimizer": update.state_dict(), "step": done}
            saves.renamed(state, job.path / f"step_{done}.pt")

        def leave(*_: object) -> None:
            if handler == "saves at once":
                save()
            if handler == "waits":
                threading.Event().wait()
            if handler == "leaves by the system":
                os._exit(code)
            sys.exit(code)

        if handler in {"flag", "flag of no use"}:
            signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        elif handler == "ignored":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif handler != "none":
            signal.signal(signal.SIGTERM, leave)
        path = saves.highest(job.path, "step_{step}.pt") if job.restarting else job.resume_from
        if path:
            state = torch.load(path)
            model.load_state_dict(state["model"])
            update.load_state_dict(state["optimizer"])
            done = state["step"]
        while done < last:
            update.zero_grad()
            for turn in range(2):
                inputs, targets = plain.batch(2 * done + turn + 1)
                cross_entropy(model(inputs), targets).backward()
            update.step()
            done += 1
            if done % every == 0:
                save()
            if done % 2 == 0:
                model.eval()
                with torch.no_grad():
                    model(plain.batch(1)[0])
                model.train()
            if told and handler == "flag":
                save()
                sys.exit(code)

    return train


def verdict_of(judge: Judge, train: Callable[[Job], object], *args: Any, **given: Any) -> Verdict:
    """Return the contract's verdict on a job."""
    return judge(train, Preemptible(*args, **given))["preemptible"]


def test_a_flag_that_is_looked_at_after_each_step_holds(judge: Judge) -> None:
    """In each phase that the job has."""
    verdict = verdict_of(judge, job("flag"), exit_code=143)
    assert "held" == verdict.status, verdict
    assert "in a forward pass, between the batches of a step, between two steps, in an evaluation" in verdict.sentence
    assert ("in the midst of a save" in verdict.sentence) is not bool(why_not())
    assert "as a data loader started: the job came to no such moment" in verdict.notes[0]


def test_a_job_without_a_handler_loses_what_it_trained_since_the_last_save(judge: Judge) -> None:
    """With the phases, how it ended, and what was there."""
    verdict = verdict_of(judge, job("none"), phases=PLAIN)
    assert "violated" == verdict.status
    assert "in 3 of 3 phases a signal costs what was trained since the last save: step 4 is lost" == verdict.sentence
    (finding,) = verdict.findings
    assert (
        "SIGTERM",
        "in a forward pass after step 4: its process was killed by SIGTERM (signal 15); newest whole: step 3",
    ) == finding.rows[0]
    assert "nothing handles the signal: the process ends at once." == finding.cause


@pytest.mark.parametrize("handler", ["leaves", "leaves by the system"])
def test_a_handler_that_only_leaves_loses_as_much(judge: Judge, handler: str) -> None:
    """Whichever way it leaves."""
    verdict = verdict_of(judge, job(handler), phases=("step",))
    assert "violated" == verdict.status
    assert "step 4 is lost" in verdict.sentence
    assert "it leaves without a save of its last step." == verdict.findings[0].cause


@pytest.mark.parametrize("handler", ["ignored", "flag of no use"])
def test_a_signal_that_is_passed_over_is_found(judge: Judge, handler: str) -> None:
    """Though the job saves its last step, as it would have anyway."""
    verdict = verdict_of(judge, job(handler), phases=("forward",))
    assert "violated" == verdict.status
    assert "the job passed over the signal and trained to its end" == verdict.sentence


def test_a_job_that_is_still_there_is_killed(judge: Judge) -> None:
    """When its time of grace is over."""
    verdict = verdict_of(judge, job("waits"), phases=("step",), grace=1.5)
    assert "violated" == verdict.status
    assert "the job was still there 1.5 s after the signal" == verdict.sentence


def test_a_save_in_the_handler_holds_half_a_step(judge: Judge) -> None:
    """Between batches, the running statistics are those of a step that had begun."""
    verdict = verdict_of(judge, job("saves at once"), phases=("accumulation",))
    assert "violated" == verdict.status
    assert "beside step_4.pt, the job does not restore buffers as one without a signal does" in verdict.sentence


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "calls are seen here")
def test_a_save_that_a_signal_cuts_off_is_lost(judge: Judge) -> None:
    """The step that was being saved is the last finished one."""
    verdict = verdict_of(judge, job("none"), phases=("save",))
    assert "violated" == verdict.status
    assert "a signal costs what was trained since the last save: steps 4 to 6 are lost" == verdict.sentence


def test_another_exit_code_than_promised_is_found(judge: Judge) -> None:
    """A scheduler goes by it."""
    assert "held" == verdict_of(judge, job("flag", code=85), phases=("step",)).status
    verdict = verdict_of(judge, job("flag", code=0), phases=("step",), exit_code=143)
    assert "violated" == verdict.status
    assert "the job left with exit code 0, expected 143" == verdict.sentence


def test_transformers_saves_where_it_is_asked_to(judge: Judge) -> None:
    """`enable_jit_checkpoint` acts three seconds after the signal; without it the process dies."""
    if not hasattr(TrainingArguments, "enable_jit_checkpoint"):
        pytest.skip("this release has no enable_jit_checkpoint")

    def train(given: dict[str, Any]) -> Callable[[Job], object]:
        return lambda job: job.train(hf.trainer(job, max_steps=10, save_steps=3, **given))

    verdict = verdict_of(judge, train({"enable_jit_checkpoint": True}), phases=("forward", "step"), exit_code=0)
    assert "held" == verdict.status, verdict
    verdict = verdict_of(judge, train({}), phases=("forward",))
    assert "step 4 is lost" in verdict.sentence


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("saving", [False, True])
def test_lightning_saves_on_its_exception_only_where_it_is_asked_to(judge: Judge, *, saving: bool) -> None:
    """Its handler of SIGTERM ends training after the batch, by an exception."""
    import lightning.pytorch as lightning
    from lightning.pytorch.callbacks import OnExceptionCheckpoint

    def train(job: Job) -> None:
        lightning.seed_everything(1, verbose=False)
        saved = pl.checkpoint("lightning.pytorch", dirpath=job.dir, every_n_train_steps=3, save_top_k=-1)
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        callbacks = [saved, *([OnExceptionCheckpoint(job.dir)] if saving else [])]
        trainer = lightning.Trainer(callbacks=callbacks, max_epochs=2, accelerator="cpu", **quiet)
        found = sorted(job.path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        newest = str(found[-1]) if job.restarting and found else job.resume_from
        trainer.fit(pl.model("lightning.pytorch"), pl.loader(), ckpt_path=newest)

    verdict = verdict_of(judge, train, phases=("forward", "step"))
    assert ("held" if saving else "violated") == verdict.status, verdict


def test_a_loader_that_starts_is_a_moment(judge: Judge) -> None:
    """As a signal then meets a job whose workers are being started."""

    def train(job: Job) -> None:
        told: list[int] = []
        signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        update = torch.optim.SGD(model.parameters(), lr=0.1)
        path = saves.highest(job.path, "step_{step}.pt") if job.restarting else job.resume_from
        done = 0
        if path:
            state = torch.load(path)
            model.load_state_dict(state["model"])
            done = state["step"]
        while done < 10:
            for inputs, targets in pl.loader(num_workers=1):
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                done += 1
                if done % 3 == 0 or told:
                    saves.renamed({"model": model.state_dict(), "step": done}, job.path / f"step_{done}.pt")
                if told or done == 10:
                    return

    verdict = verdict_of(judge, train, "SIGUSR1", phases=("loader",), exit_code=0)
    assert "held" == verdict.status, verdict
    assert "at SIGUSR1 (as a data loader started) the job saved its last step" in verdict.sentence


def test_a_phase_that_is_named_and_does_not_come_is_inconclusive(judge: Judge) -> None:
    """It could not be looked at."""
    verdict = verdict_of(judge, job("flag"), phases=("loader",))
    assert "inconclusive" == verdict.status
    assert "the job came to no moment as a data loader started" in verdict.sentence


def test_a_job_of_a_few_steps_is_inconclusive(judge: Judge) -> None:
    """It ends before it could leave."""
    verdict = verdict_of(judge, job("none", last=3, every=1))
    assert "inconclusive" == verdict.status
    assert "the job trains 3 steps" in verdict.sentence


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"signal": "TERM"},
            "signal must be the name of one that can be handled, such as SIGTERM or SIGUSR1; got 'TERM'",
        ),
        (
            {"signal": "SIGKILL"},
            "signal must be the name of one that can be handled, such as SIGTERM or SIGUSR1; got 'SIGKILL'",
        ),
        ({"grace": 0}, "grace must be a number of seconds above 0; got 0"),
        ({"grace": float("nan")}, "grace must be a number of seconds above 0; got nan"),
        ({"exit_code": 256}, "exit_code must be a whole number from 0 to 255, or None for any; got 256"),
        ({"exit_code": True}, "exit_code must be a whole number from 0 to 255, or None for any; got True"),
        ({"phases": ()}, "phases must be some of forward, accumulation, step, evaluation, loader, save; got ()"),
        (
            {"phases": "step"},
            "phases must be some of forward, accumulation, step, evaluation, loader, save; got 'step'",
        ),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str) -> None:
    """With what is right."""
    with pytest.raises(InvalidArgument) as raised:
        Preemptible(**given)
    assert message == str(raised.value)
