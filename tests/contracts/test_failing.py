"""An error in the midst of training: what it costs, and what a handler saves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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


def job(handler: Literal["none", "saves", "swallows", "names wrongly"], every: int = EVERY) -> Callable[[Job], None]:
    """Return a plain loop with that way of handling an error."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        step = saver.load()
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
            if handler != "none":
                saver.save(step)
            if handler != "swallows":
                raise

    return train


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
    assert ("held", "an error in step 6 leaves step 5 in step_5.pt, and ends the job") == (
        verdict.status,
        verdict.sentence,
    )


def test_a_handler_that_swallows(judge: Judge) -> None:
    """A job that ends well after an error is told so, whatever it has saved."""
    verdict = judge(job("swallows"), OnError())["on_error"]
    assert ("violated", True) == (verdict.status, "was swallowed" in verdict.sentence)


def test_every_step_is_saved(judge: Judge) -> None:
    """Where each step is saved an error costs nothing, and nothing can be seen."""
    verdict = judge(job("none", every=1), OnError())["on_error"]
    assert ("inconclusive", True) == (verdict.status, "each of the 7 steps is saved anyway" in verdict.sentence)


def test_a_trainer_of_transformers(judge: Judge) -> None:
    """The Trainer saves nothing on an error."""
    pytest.importorskip("transformers")
    from jobs import hf

    verdict = judge(lambda job: hf.run(job, max_steps=7, save_steps=3), OnError())["on_error"]
    assert ("violated", True) == (verdict.status, "steps 4 to 5 are lost" in verdict.sentence)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("saves", [False, True])
def test_a_trainer_of_lightning(judge: Judge, *, saves: bool) -> None:
    """With `save_on_exception` Lightning leaves a checkpoint of the last finished step."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    package = "lightning.pytorch"
    if pl.VERSION < (2, 6):
        pytest.skip("ModelCheckpoint has no save_on_exception")

    def train(job: Job) -> None:
        pl.fit(package, job, pl.checkpoint(package, every_n_epochs=1, save_top_k=-1, save_on_exception=saves))

    verdict = judge(train, OnError())["on_error"]
    assert ("held" if saves else "violated") == verdict.status, verdict
