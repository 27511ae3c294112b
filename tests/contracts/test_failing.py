"""An error in the midst of training: what it costs, what a handler saves, and what a resume makes of that."""

from __future__ import annotations

import copy
import os
import signal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.failing import OnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job

LAST, EVERY = 7, 3

Handler: TypeAlias = Literal[
    "none",
    "saves",
    "swallows",
    "weights only",
    "no optimizer",
    "fresh optimizer",
    "counts ahead",
    "old weights",
    "other form",
    "saves and exits",
    "exits",
    "saves and is killed",
]


def job(handler: Handler, every: int = EVERY) -> Callable[[Job], None]:
    """Return a plain loop with that way of handling an error."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        step = saver.load()
        begun = copy.deepcopy(model.state_dict())
        try:
            while step < LAST:
                inputs, targets = plain.batch(step + 1)
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                step += 1
                if step % every == 0 or step == LAST:
                    saver.save(step)
        except RuntimeError:
            _handle(handler, job, step, saver, begun)
            if handler != "swallows":
                raise

    return train


def _handle(handler: Handler, job: Job, step: int, saver: plain.Saver, begun: dict[str, torch.Tensor]) -> None:
    """Save as that handler does, rightly or not."""
    model, update = saver.parts["model"], saver.parts["optimizer"]
    file = job.path / f"step_{step}.pt"
    match handler:
        case "none":
            return
        case "exits":
            os._exit(7)
        case "weights only":
            torch.save(model.state_dict(), file)
            return
        case "fresh optimizer":
            saver.parts["optimizer"] = torch.optim.AdamW(model.parameters(), lr=0.05)
        case "old weights":
            model.load_state_dict(begun)
        case "counts ahead":
            step += 1
    saver.save(step)
    if handler in {"no optimizer", "other form"}:
        saved = torch.load(file, weights_only=False)
        saved["optimizer"] = {**update.state_dict(), "state": {}}
        torch.save(saved if handler == "no optimizer" else {"state": saved, "why": "an error"}, file)
    if handler == "saves and exits":
        os._exit(7)
    if handler == "saves and is killed":
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("handler", ["saves and exits", "saves and is killed", "exits"])
def test_a_handler_that_leaves_at_once(judge: Judge, handler: Handler) -> None:
    """What it has saved counts, though the process has no look at its own end."""
    verdict = judge(job(handler), OnError())["on_error"]
    assert ("violated" if handler == "exits" else "held") == verdict.status, str(judge)


def test_nothing_saves_on_an_error(judge: Judge) -> None:
    """The steps since the last save are lost."""
    verdict = judge(job("none"), OnError())["on_error"]
    found = verdict.findings[0]
    assert ("violated", 5, "error") == (verdict.status, found.step, found.component)
    expected = "an error in step 6 costs what was trained since the last save: steps 4 to 5 are lost"
    assert expected == verdict.sentence
    assert (("saved", "step 3"), ("on disk", "step_3.pt")) == found.rows


def test_a_handler_that_saves(judge: Judge) -> None:
    """The last finished step is on disk, and the job has failed."""
    verdict = judge(job("saves"), OnError())["on_error"]
    expected = "an error in step 6 leaves step 5 in step_5.pt, from which training goes on, and ends the job"
    assert ("held", expected, ()) == (verdict.status, verdict.sentence, verdict.notes)


def test_a_handler_that_swallows(judge: Judge) -> None:
    """A job that ends well after an error is told so, whatever it has saved."""
    verdict = judge(job("swallows"), OnError())["on_error"]
    assert ("violated", True) == (verdict.status, "was swallowed" in verdict.sentence)


def test_a_job_that_tries_again(judge: Judge) -> None:
    """It has met the error and goes on, which is neither right nor wrong; it is told as what it is."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        step = 0
        while step < LAST:
            inputs, targets = plain.batch(step + 1)
            update.zero_grad()
            try:
                cross_entropy(model(inputs), targets).backward()
            except RuntimeError:
                continue
            update.step()
            step += 1
            if step % EVERY == 0:
                torch.save(model.state_dict(), job.path / f"step_{step}.pt")

    verdict = judge(train, OnError())["on_error"]
    expected = "an error in step 6 was caught, and the job trained on: it ended after step 7"
    assert ("inconclusive", expected) == (verdict.status, verdict.sentence), verdict


def test_every_step_is_saved(judge: Judge) -> None:
    """Where each step is saved an error costs nothing, and nothing can be seen."""
    verdict = judge(job("none", every=1), OnError())["on_error"]
    assert ("inconclusive", True) == (verdict.status, "each of the 7 steps is saved anyway" in verdict.sentence)


def test_a_handler_that_saves_the_weights_only(judge: Judge) -> None:
    """Training can't be continued from the model alone, where other checkpoints hold the optimizer."""
    verdict = judge(job("weights only"), OnError())["on_error"]
    found = verdict.findings[0]
    assert ("violated", "optimizer", "step_5.pt") == (verdict.status, found.component, found.checkpoint)
    expected = "steps 4 to 5 are lost; step_5.pt has the weights only, and training can't be continued from it"
    assert verdict.sentence.endswith(expected)


@pytest.mark.parametrize(
    ("handler", "component"),
    [("no optimizer", "optimizer"), ("fresh optimizer", "optimizer"), ("old weights", "weights, buffers")],
)
def test_a_handler_that_saves_another_state(judge: Judge, handler: Handler, component: str) -> None:
    """What a resume does not restore is named."""
    verdict = judge(job(handler), OnError())["on_error"]
    found = verdict.findings[0]
    assert ("violated", 6, "step_5.pt") == (verdict.status, found.step, found.checkpoint)
    assert component.partition(",")[0] == found.component
    expected = f"an error in step 6 leaves step_5.pt, which does not restore {component} as other checkpoints do"
    assert expected == verdict.sentence


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_scheduler_that_the_failed_step_had_advanced(judge: Judge) -> None:
    """A half-made step is saved where the scheduler goes first."""

    def train(job_: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(update, 0.9)
        saver = plain.Saver(job_, model=model, optimizer=update, scheduler=scheduler)
        step = saver.load()
        try:
            while step < LAST:
                inputs, targets = plain.batch(step + 1)
                update.zero_grad()
                scheduler.step()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                step += 1
                if step % EVERY == 0 or step == LAST:
                    saver.save(step)
        except RuntimeError:
            saver.save(step)
            raise

    verdict = judge(train, OnError())["on_error"]
    assert ("violated", "lr") == (verdict.status, verdict.findings[0].component), verdict
    assert "is saved one step ahead" in verdict.findings[0].cause


def test_a_handler_that_counts_the_step_that_failed(judge: Judge) -> None:
    """The half-made step is skipped by the resume."""
    verdict = judge(job("counts ahead"), OnError())["on_error"]
    assert ("violated", "steps") == (verdict.status, verdict.findings[0].component)
    assert "an error in step 6 leaves step_6.pt, from which 1 step was trained, expected 2" == verdict.sentence
    assert "it is skipped" in verdict.findings[0].cause


def test_a_handler_that_saves_in_another_form(judge: Judge) -> None:
    """What the job can't load is no checkpoint."""
    verdict = judge(job("other form"), OnError())["on_error"]
    assert ("violated", "runs") == (verdict.status, verdict.findings[0].component)
    assert verdict.sentence.startswith("an error in step 6 leaves step_5.pt, from which training can't go on: ")
    assert "KeyError" in verdict.sentence


def test_a_job_that_never_restores_its_optimizer(judge: Judge) -> None:
    """What a resume from any checkpoint lacks is not the handler's doing."""

    def train(job_: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model)
        step = saver.load()
        try:
            while step < LAST:
                inputs, targets = plain.batch(step + 1)
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                step += 1
                if step % EVERY == 0 or step == LAST:
                    saver.save(step)
        except RuntimeError:
            saver.save(step)
            raise

    verdict = judge(train, OnError())["on_error"]
    assert "held" == verdict.status, verdict
    assert (
        "resuming from step_5.pt differs in optimizer, as it does from step_6.pt: see ckpt_resumable",
    ) == verdict.notes


def test_a_loader_that_has_given_its_batch(judge: Judge) -> None:
    """The step that failed had taken a batch: that is told, and no violation."""

    def train(job_: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        position = Position()
        saver = plain.Saver(job_, model=model, optimizer=update, data=position)
        step = saver.load()
        try:
            while step < LAST:
                inputs, targets = position.batch()
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                step += 1
                if step % EVERY == 0 or step == LAST:
                    saver.save(step)
        except RuntimeError:
            saver.save(step)
            raise

    verdict = judge(train, OnError())["on_error"]
    assert "held" == verdict.status, verdict
    assert ("resuming from step_5.pt does not go on with the batch of step 6: see ckpt_resumable",) == verdict.notes


def test_two_optimizers(judge: Judge) -> None:
    """A step is done when both have stepped: the error does not come between them."""

    def train(job_: Job) -> None:
        maker, critic = torch.nn.Linear(3, plain.FEATURES), torch.nn.Linear(plain.FEATURES, 1)
        makes, judges = (torch.optim.Adam(net.parameters(), lr=0.01) for net in (maker, critic))
        saver = plain.Saver(job_, maker=maker, critic=critic, makes=makes, judges=judges)
        step = saver.load()
        try:
            while step < LAST:
                inputs, _ = plain.batch(step + 1)
                judges.zero_grad()
                (critic(maker(inputs[:, :3]).detach()).mean() - critic(inputs).mean()).backward()
                judges.step()
                makes.zero_grad()
                (-critic(maker(inputs[:, :3])).mean()).backward()
                makes.step()
                step += 1
                if step % EVERY == 0 or step == LAST:
                    saver.save(step)
        except RuntimeError:
            saver.save(step)
            raise

    verdict = judge(train, OnError())["on_error"]
    assert ("held", True) == (verdict.status, "leaves step 5 in step_5.pt" in verdict.sentence), verdict


class Position:
    """A source of batches that has a place."""

    def __init__(self) -> None:
        self._given = 0

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the next batch."""
        self._given += 1
        return plain.batch(self._given)

    def state_dict(self) -> dict[str, int]:
        """Return how many were given."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after those."""
        self._given = state["given"]


def test_a_job_that_can_not_be_resumed_at_all(judge: Judge) -> None:
    """Whether the handler saves rightly can't be told where no checkpoint can be resumed from."""

    def train(job_: Job) -> None:
        if job_.resume_from is not None:
            message = "no resume in this release"
            raise RuntimeError(message)
        job("saves")(job_)

    verdict = judge(train, OnError())["on_error"]
    assert ("inconclusive", True) == (verdict.status, "and neither can what is saved without" in verdict.sentence)


def test_a_job_that_ignores_resume_from(judge: Judge) -> None:
    """The last finished step is there, and whether training goes on from it was not seen."""

    def train(job_: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model, optimizer=update)
        step = 0
        try:
            while step < LAST:
                inputs, targets = plain.batch(step + 1)
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                step += 1
        except RuntimeError:
            saver.save(step)
            raise

    verdict = judge(train, OnError())["on_error"]
    assert ("inconclusive", True) == (verdict.status, "never read ckpt_job.resume_from" in verdict.sentence)


@pytest.fixture
def hf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Jobs of transformers, which old releases can resume with this variable only (bug HF-09)."""
    pytest.importorskip("transformers")
    from jobs import hf

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    return hf


def test_a_trainer_of_transformers(judge: Judge, hf: Any) -> None:
    """The Trainer saves nothing on an error."""
    verdict = judge(lambda job: hf.run(job, max_steps=7, save_steps=3), OnError())["on_error"]
    assert ("violated", True) == (verdict.status, "steps 4 to 5 are lost" in verdict.sentence)
    assert "around trainer.train()" in verdict.findings[0].fix


@pytest.mark.parametrize("whole", [True, False])
def test_a_handler_around_a_trainer_of_transformers(judge: Judge, hf: Any, *, whole: bool) -> None:
    """The Trainer's own save makes a checkpoint; `save_model` saves the model only."""

    def train(job_: Job) -> None:
        trainer = hf.trainer(job_, callbacks=hf.repairs(), max_steps=7, save_steps=3)
        try:
            trainer.train(resume_from_checkpoint=job_.resume_from)
        except RuntimeError:
            if whole:
                trainer._save_checkpoint(trainer.model, trial=None)  # noqa: SLF001 - what the message says
            else:
                trainer.save_model(f"{job_.dir}/checkpoint-{trainer.state.global_step}")
            raise

    verdict = judge(train, OnError())["on_error"]
    assert ("held" if whole else "violated") == verdict.status, verdict
    expected = (
        "leaves step 5 in checkpoint-5, from which training goes on" if whole else "checkpoint-5 has the weights only"
    )
    assert expected in verdict.sentence


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("every", [{"every_n_epochs": 1}, {"every_n_train_steps": 4}])
@pytest.mark.parametrize("saves", [False, True])
def test_a_trainer_of_lightning(judge: Judge, every: dict[str, int], *, saves: bool) -> None:
    """With `save_on_exception` Lightning leaves a checkpoint of the last finished step; it restores no place in an epoch."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    package = "lightning.pytorch"
    if pl.VERSION < (2, 6):
        pytest.skip("ModelCheckpoint has no save_on_exception")

    def train(job: Job) -> None:
        pl.fit(package, job, pl.checkpoint(package, save_top_k=-1, save_on_exception=saves, **every))

    verdict = judge(train, OnError())["on_error"]
    assert ("held" if saves else "violated") == verdict.status, verdict
    if saves:
        assert "does not go on with the batch of step 15" in verdict.notes[0]
    else:
        assert "save_on_exception=True" in verdict.findings[0].fix


@pytest.mark.filterwarnings("default")
def test_two_optimizers_of_lightning(judge: Judge) -> None:
    """The same where the framework tells of the end of a step."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    from jobs import pl

    package = "lightning.pytorch"

    def train(job: Job) -> None:
        regular = pl.checkpoint(package, every_n_epochs=1, save_top_k=-1)
        handler = callbacks.OnExceptionCheckpoint(job.dir)
        pl.fit(package, job, regular, handler, module=pl.two_optimizers(package))

    verdict = judge(train, OnError())["on_error"]
    assert "held" == verdict.status, verdict


@pytest.mark.filterwarnings("default")
def test_a_callback_of_lightning_for_exceptions(judge: Judge) -> None:
    """OnExceptionCheckpoint saves beside a ModelCheckpoint; it has no schedule and no metric."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    from jobs import pl

    package = "lightning.pytorch"

    def train(job: Job) -> None:
        regular = pl.checkpoint(package, every_n_epochs=1, save_top_k=-1)
        pl.fit(package, job, regular, callbacks.OnExceptionCheckpoint(job.dir))

    verdict = judge(train, OnError())["on_error"]
    assert "held" == verdict.status, verdict
    assert "leaves step 14 in on_exception.ckpt" in verdict.sentence
