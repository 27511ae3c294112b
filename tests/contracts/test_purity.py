"""Saves that change the model and resumes that change a checkpoint, and those that do not."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.purity import Pure

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job

LAST, EVERY = 7, 3


def job(*, put_back: bool = True, mark: bool = False, clamp: bool = False) -> Callable[[Job], None]:
    """Return a plain loop that saves an average of the weights by putting it into the model.

    Args:
        put_back: whether the trained weights come back after the save.
        mark: whether a resume notes in the checkpoint that it was used.
        clamp: whether the weights are clamped after each step.
    """

    def train(job: Job) -> None:
        model = plain.network(norm=False)
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        average = copy.deepcopy(model)
        saver = plain.Saver(job, model=model, average=average, optimizer=update)
        start = saver.load()
        if start and mark:
            torch.save({**torch.load(str(job.resume_from), weights_only=False), "used": True}, str(job.resume_from))
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            with torch.no_grad():
                for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                    mean.lerp_(value, 0.1)
                    if clamp:
                        value.clamp_(-0.2, 0.2)
            if step % EVERY == 0 or step == LAST:
                saver.save(step)
                trained = copy.deepcopy(model.state_dict())
                model.load_state_dict(average.state_dict())
                torch.save(model.state_dict(), job.path / f"export_{step}.pt")
                if put_back:
                    model.load_state_dict(trained)

    return train


def test_a_save_that_leaves_the_average_in_the_model(judge: Judge) -> None:
    """Training goes on from the averaged weights, at the saves only."""
    verdict = judge(job(put_back=False), Pure())["pure"]
    assert ("violated", 4, "weights") == (verdict.status, verdict.findings[0].step, verdict.findings[0].component)
    expected = "saving changed the model: after the saves at steps 3, 6 training went on with other weights"
    assert expected == verdict.sentence


def test_a_save_that_puts_the_weights_back(judge: Judge) -> None:
    """The same save with the trained weights put back changes nothing."""
    verdict = judge(job(), Pure())["pure"]
    assert "held" == verdict.status, verdict
    assert "saving at steps 3, 6, 7 changed no weight, and resuming changed no file of a checkpoint" == verdict.sentence


def test_weights_that_are_clamped_after_each_step(judge: Judge) -> None:
    """What changes after every step is the job's own rule, and not the save."""
    assert "held" == judge(job(clamp=True), Pure())["pure"].status


def test_a_resume_that_writes_into_its_checkpoint(judge: Judge) -> None:
    """A file of the checkpoint has other content after the resume."""
    verdict = judge(job(mark=True), Pure())["pure"]
    found = verdict.findings[0]
    expected = ("violated", "resuming from step 3 changed step_3.pt", "step_3.pt", "files")
    assert expected == (verdict.status, verdict.sentence, found.checkpoint, found.component)


def test_one_file_that_is_saved_over(judge: Judge) -> None:
    """A checkpoint that later saves replace is not changed by the resume."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update, name="latest.pt")
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()

    assert "held" == judge(train, Pure())["pure"].status


def test_trainers(judge: Judge) -> None:
    """The Trainer of transformers keeps both promises."""
    pytest.importorskip("transformers")
    from jobs import hf

    verdict = judge(lambda job: hf.run_repaired(job, max_steps=8, save_steps=3), Pure())["pure"]
    assert "held" == verdict.status, verdict


@pytest.mark.filterwarnings("default")
def test_a_trainer_of_lightning(judge: Judge) -> None:
    """Lightning keeps both promises."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    package = "lightning.pytorch"
    callback = {"every_n_epochs": 1, "save_top_k": -1, "save_last": True}
    verdict = judge(lambda job: pl.fit(package, job, pl.checkpoint(package, **callback)), Pure())["pure"]
    assert "held" == verdict.status, verdict
