"""Settings that are changed for a resume: taken, refused, or ignored."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.stability import StableSchedule
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.testing import check_contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job
    from pytest_ckpt.records.verdict import Verdict

LAST, EVERY = 11, 4
LIGHTNING = "lightning.pytorch"


def job(
    way: Literal["takes", "stored wins", "refuses", "smaller wins", "never asks", "breaks"],
) -> Callable[[Job], None]:
    """Return a plain loop that stores its interval in the checkpoint, with that way of meeting another one."""

    def train(job: Job) -> None:
        every = EVERY if way == "never asks" else int(str(job.changed.get("save_every", EVERY)))
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        start = saver.load()
        if start:
            every = _met(way, int(torch.load(str(job.resume_from), weights_only=False)["every"]), every)
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % every == 0 or step == LAST:
                saver.save(step)
                file = job.path / f"step_{step}.pt"
                torch.save({**torch.load(file, weights_only=False), "every": every}, file)

    return train


def _met(way: str, stored: int, given: int) -> int:
    """Return the interval of a resumed run."""
    if way == "breaks" or (way == "refuses" and stored != given):
        message = f"the checkpoint was saved with every={stored}, and every={given} is asked for"
        raise ValueError(message)
    if way == "smaller wins":
        return min(stored, given, 2)
    return stored if way == "stored wins" else given


def verdict_of(judge: Judge, train: Callable[[Job], object], **change: Any) -> Verdict:
    """Return the verdict on a job whose settings are changed."""
    return judge(train, StableSchedule(change=change))["stable_schedule"]


# -- plain loops -------------------------------------------------------------------------------------------------------


def test_a_stored_interval_that_wins(judge: Judge) -> None:
    """The new interval is silently ignored."""
    verdict = verdict_of(judge, job("stored wins"), save_every=3)
    expected = "save_every=3 was ignored when training was resumed from step 4: still saved at steps 8, 11, as in the first run"
    assert ("violated", expected, 2) == (verdict.status, verdict.sentence, len(verdict.findings))
    found = verdict.findings[0]
    assert ("schedule", "step_4.pt", 4) == (found.component, found.checkpoint, found.step)
    assert ("a run with the change", "steps 6, 9, 11") == found.rows[0]


def test_a_new_interval_that_is_taken(judge: Judge) -> None:
    """The resumed run saves as one that has it from the beginning."""
    verdict = verdict_of(judge, job("takes"), save_every=3)
    expected = "save_every=3 takes effect when training is resumed from steps 4, 8"
    assert ("held", expected, ()) == (verdict.status, verdict.sentence, verdict.notes)


def test_a_change_that_is_refused(judge: Judge) -> None:
    """An error is an answer."""
    verdict = verdict_of(judge, job("refuses"), save_every=3)
    expected = "save_every=3 is refused when training is resumed from steps 4, 8"
    assert ("held", expected, 2) == (verdict.status, verdict.sentence, len(verdict.notes))
    assert "ValueError: the checkpoint was saved with every=4, and every=3 is asked for" in verdict.notes[0]


def test_saves_that_follow_neither(judge: Judge) -> None:
    """Both sets of steps are told."""
    verdict = verdict_of(judge, job("smaller wins"), save_every=3)
    assert "violated" == verdict.status
    expected = "resumed from step 4 with save_every=3, saved at steps 6, 8, 10, 11, and not at steps 6, 9, 11"
    assert expected == verdict.sentence


def test_a_job_that_never_asks(judge: Judge) -> None:
    """Whether a change is ignored on resume can't be told of a job that does not know of it."""
    verdict = verdict_of(judge, job("never asks"), save_every=3)
    assert ("inconclusive", True) == (verdict.status, "it never read ckpt_job.changed" in verdict.sentence)
    assert "ckpt_job.changed.get" in verdict.findings[0].fix


@pytest.mark.parametrize(("value", "what"), [(4, "changes nothing"), (11, "")])
def test_a_change_that_can_not_be_seen(judge: Judge, value: int, what: str) -> None:
    """The same interval changes nothing; one that saves the last step only is seen."""
    verdict = verdict_of(judge, job("takes"), save_every=value)
    assert (("inconclusive" if what else "held"), True) == (verdict.status, what in verdict.sentence)


def test_a_change_before_the_first_checkpoint_only(judge: Judge) -> None:
    """A resume can't tell of it."""

    def train(job_: Job) -> None:
        first = int(str(job_.changed.get("first", 2)))
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model, optimizer=update)
        for step in range(saver.load() + 1, 8):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step in {first, 5, 7}:
                saver.save(step)

    verdict = verdict_of(judge, train, first=1)
    assert ("inconclusive", True) == (verdict.status, "before the first checkpoint only" in verdict.sentence)


def test_a_resume_that_fails_in_any_case(judge: Judge) -> None:
    """An error without a change is no refusal of the change."""
    verdict = verdict_of(judge, job("breaks"), save_every=3)
    assert "inconclusive" == verdict.status
    assert "resuming from step 4 fails without the change as well" in verdict.sentence


def test_a_resume_that_is_killed(judge: Judge) -> None:
    """A process that dies without a word refuses nothing."""

    def train(job_: Job) -> None:
        if job_.resume_from is not None and job_.changed:
            os.kill(os.getpid(), signal.SIGKILL)
        job("takes")(job_)

    verdict = verdict_of(judge, train, save_every=3)
    assert ("inconclusive", True) == (verdict.status, "neither ended well nor was refused" in verdict.sentence)


def test_what_is_asserted_of_the_first_run(judge: Judge) -> None:
    """A body's own assertions after training count in the baseline only."""

    def train(job_: Job) -> None:
        job("takes")(job_)
        assert [path.name for path in job_.path.glob("step_4.pt")] == ["step_4.pt"]

    assert "held" == verdict_of(judge, train, save_every=3).status


def test_a_job_that_ignores_resume_from(judge: Judge) -> None:
    """Where nothing is resumed nothing can be said."""

    def train(job_: Job) -> None:
        every = int(str(job_.changed.get("save_every", EVERY)))
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % every == 0:
                torch.save(
                    {"model": model.state_dict(), "optimizer": update.state_dict()}, job_.path / f"step_{step}.pt"
                )

    verdict = verdict_of(judge, train, save_every=3)
    assert ("inconclusive", True) == (verdict.status, "never read ckpt_job.resume_from" in verdict.sentence)


@pytest.mark.parametrize("stored_wins", [True, False])
def test_batches_of_another_size(judge: Judge, *, stored_wins: bool) -> None:
    """Where the same steps are saved the size of batches tells whether it was taken."""

    def train(job_: Job) -> None:
        size = int(str(job_.changed.get("batch_size", 4)))
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model, optimizer=update)
        start = saver.load()
        if start and stored_wins:
            size = 4
        for step in range(start + 1, 8):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs[:size]), targets[:size]).backward()
            update.step()
            if step % 3 == 0 or step == 7:
                saver.save(step)

    verdict = verdict_of(judge, train, batch_size=2)
    assert ("violated" if stored_wins else "held") == verdict.status, verdict
    if stored_wins:
        assert "still trained on batches of 4, as in the first run" in verdict.sentence
        assert "data" == verdict.findings[0].component


@pytest.mark.parametrize("change", [{}, [], "save_steps", {"": 2}, {2: "save_steps"}, {"save_steps": [2]}])
def test_a_change_that_is_none(change: Any) -> None:
    """Names of settings and plain values are asked for."""
    with pytest.raises(InvalidArgument, match="change must map names of settings to new plain values"):
        StableSchedule(change=change)


def test_the_contract_is_fit() -> None:
    """With a change it is what `pytest_ckpt_contracts` asks for, too."""
    check_contract(StableSchedule, change={"save_steps": 2})


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Jobs of transformers, which old releases can resume with this variable only (bug HF-09)."""
    pytest.importorskip("transformers")
    from jobs import hf

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    return hf


def test_save_steps_of_transformers(judge: Judge, hf: Any) -> None:
    """The interval in trainer_state.json wins over the arguments (bug HF-15)."""
    verdict = verdict_of(judge, partial(hf.run_repaired, max_steps=10, save_steps=4), save_steps=2)
    expected = (
        "save_steps=2 was ignored when training was resumed from step 4: still saved at steps 8, 10, as with the 4 of the "
        "first run"
    )
    assert ("violated", expected) == (verdict.status, verdict.sentence)
    assert "trainer_state.json" in verdict.findings[0].cause
    assert "trainer_state.json" in verdict.findings[0].fix


def test_save_steps_changed_in_the_checkpoint(judge: Judge, hf: Any) -> None:
    """With the value in trainer_state.json changed too, it is taken: the fix of the message."""

    def train(job_: Job) -> None:
        every = job_.changed.get("save_steps", 4)
        if job_.resume_from is not None:
            state = Path(job_.resume_from, "trainer_state.json")
            stored = json.loads(state.read_text(encoding="utf-8"))
            state.write_text(json.dumps({**stored, "save_steps": every}), encoding="utf-8")
        hf.run_repaired(job_, max_steps=10, save_steps=every)

    verdict = verdict_of(judge, train, save_steps=2)
    assert "held" == verdict.status, verdict


def test_batch_size_of_transformers(judge: Judge, hf: Any) -> None:
    """Up to 5.1 the size of batches in trainer_state.json wins (bug HF-07)."""
    verdict = verdict_of(judge, partial(hf.run_repaired, max_steps=10, save_steps=4), per_device_train_batch_size=2)
    if hf.VERSION >= (5, 2):
        assert "held" == verdict.status, verdict
        return
    assert ("violated", True) == (verdict.status, "still trained on batches of 4" in verdict.sentence)


def test_more_steps_of_transformers(judge: Judge, hf: Any) -> None:
    """The end of training is taken from the arguments."""
    verdict = verdict_of(judge, partial(hf.run_repaired, max_steps=10, save_steps=4), max_steps=14)
    assert "held" == verdict.status, verdict


def test_a_setting_that_transformers_does_not_know(judge: Judge, hf: Any) -> None:
    """A misspelt name is no refusal on resume."""
    verdict = verdict_of(judge, partial(hf.run_repaired, max_steps=10, save_steps=4), save_stps=2)
    assert ("inconclusive", True) == (verdict.status, "have no setting 'save_stps'" in verdict.sentence)


def test_a_trainer_job_with_names_of_its_own(judge: Judge, hf: Any) -> None:
    """A job that reads the changes itself may call them as it likes."""

    def train(job_: Job) -> None:
        hf.run_repaired(job_, max_steps=job_.changed.get("length", 10), save_steps=4)

    assert "held" == verdict_of(judge, train, length=14).status


# -- Lightning ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("callback", "change"),
    [
        ({"every_n_train_steps": 4}, {"every_n_train_steps": 3}),
        ({"every_n_epochs": 1}, {"every_n_epochs": 2}),
        ({"every_n_epochs": 1}, {"every_n_train_steps": 4, "every_n_epochs": 0}),
    ],
)
def test_intervals_of_lightning(judge: Judge, callback: dict[str, int], change: dict[str, int]) -> None:
    """ModelCheckpoint restores no interval: the new one is taken."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    def train(job_: Job) -> None:
        pl.fit(LIGHTNING, job_, pl.checkpoint(LIGHTNING, save_top_k=-1, **callback), max_epochs=4)

    verdict = verdict_of(judge, train, **change)
    assert "held" == verdict.status, verdict


@pytest.mark.filterwarnings("default")
def test_a_setting_that_lightning_does_not_know(judge: Judge) -> None:
    """The known ones are listed."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    verdict = verdict_of(judge, lambda job_: pl.fit(LIGHTNING, job_, pl.checkpoint(LIGHTNING)), save_steps=2)
    assert ("inconclusive", True) == (verdict.status, "has a setting 'save_steps'" in verdict.sentence)
