"""Runs whose directory is moved: what names the old place breaks, what is relative goes on."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt import frameworks
from pytest_ckpt.contracts.moving import Relocatable
from pytest_ckpt.lab import Lab
from pytest_ckpt.runs.job import Job
from pytest_ckpt.testing import check_contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt.records.verdict import Verdict

LAST, EVERY = 7, 3
LIGHTNING = "lightning.pytorch"

How = Literal["absolute", "relative", "none"]


def job(
    *, latest: How = "none", text: How = "none", optimizer: How = "relative", strict: bool = True
) -> Callable[[Job], None]:
    """Return a plain loop that keeps the optimizer in a file of its own, which the checkpoint names.

    Args:
        latest: how a link to the newest checkpoint is made.
        text: how a file names it.
        optimizer: how the checkpoint names the optimizer's file.
        strict: whether a resume fails where that file is missing.
    """

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model)
        start = saver.load()
        if start:
            stored = torch.load(str(job.resume_from), weights_only=False)["optimizer"]
            named = Path(str(job.resume_from)).parent / stored  # an absolute path stays what it is
            if strict or named.exists():
                update.load_state_dict(torch.load(named))
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % EVERY == 0 or step == LAST:
                saver.save(step)
                file, other = job.path / f"step_{step}.pt", job.path / f"optimizer_{step}.pt"
                torch.save(update.state_dict(), other)
                whole = optimizer == "absolute"
                known = torch.load(file, weights_only=False)
                torch.save({**known, "optimizer": str(other) if whole else other.name}, file)
                _point_to(file, latest, text)

    return train


def _point_to(file: Path, latest: How, text: How) -> None:
    if latest != "none":
        link = file.with_name("latest")
        link.unlink(missing_ok=True)
        link.symlink_to(file if latest == "absolute" else file.name)
    if text != "none":
        named = str(file) if text == "absolute" else file.name
        file.with_name("latest.txt").write_text(f"{named}\n", encoding="utf-8")


def verdict_of(judge: Judge, train: Callable[[Job], object]) -> Verdict:
    """Return the verdict on a job."""
    return judge(train, Relocatable())["relocatable"]


# -- plain loops -------------------------------------------------------------------------------------------------------


def test_an_absolute_link(judge: Judge) -> None:
    """It dangles after the move, though nothing that resumes from a named checkpoint follows it."""
    verdict = verdict_of(judge, job(latest="absolute"))
    target = judge.lab.job.path / "step_7.pt"
    expected = f"latest -> {target} is absolute; it dangles once the directory has been moved"
    assert ("violated", expected, 1) == (verdict.status, verdict.sentence, len(verdict.findings))
    assert "os.path.relpath" in verdict.findings[0].fix


def test_a_relative_link(judge: Judge) -> None:
    """It moves along."""
    verdict = verdict_of(judge, job(latest="relative"))
    expected = "resuming from step 6 goes on alike where the directory has been moved"
    assert ("held", expected) == (verdict.status, verdict.sentence)


def test_a_link_that_leads_out_of_the_directory(judge: Judge, tmp_path: Path) -> None:
    """Data that lies elsewhere stays there."""

    def train(job_: Job) -> None:
        if job_.is_baseline:
            (job_.path / "data").symlink_to(tmp_path)
        job()(job_)

    assert "held" == verdict_of(judge, train).status


def test_a_text_that_names_the_newest(judge: Judge) -> None:
    """A file with the absolute path of a checkpoint is a pointer like a link; with its name it is none."""
    verdict = verdict_of(judge, job(text="absolute"))
    assert ("violated", True) == (verdict.status, "step_7.pt is an absolute path in a text file" in verdict.sentence)
    assert "held" == verdict_of(judge, job(text="relative")).status


def test_a_checkpoint_that_names_another_file_absolutely(judge: Judge) -> None:
    """The optimizer is looked for where it was saved."""
    verdict = verdict_of(judge, job(optimizer="absolute"))
    found = verdict.findings[0]
    assert ("violated", "runs", "step_6.pt") == (verdict.status, found.component, found.checkpoint)
    assert verdict.sentence.startswith(
        "once the directory has been moved, resuming from step 6 raised an error after 0 of 1 steps: FileNotFoundError"
    )


def test_a_missing_file_that_is_passed_over(judge: Judge) -> None:
    """Without an error the resume goes on with a fresh optimizer."""
    verdict = verdict_of(judge, job(optimizer="absolute", strict=False))
    found = verdict.findings[0]
    assert ("violated", "optimizer", 7) == (verdict.status, found.component, found.step), verdict
    expected = (
        "once the directory has been moved, resuming from step 6 goes on otherwise than in the old place: "
        "step 7 differs in optimizer"
    )
    assert expected == verdict.sentence
    assert not any("uninterrupted" in text for row in found.rows for text in row)


def test_a_resume_that_is_broken_without_a_move(judge: Judge) -> None:
    """It is not blamed on the move."""

    def train(job_: Job) -> None:
        if job_.resume_from is not None:
            message = "no resume in this release"
            raise RuntimeError(message)
        job()(job_)

    verdict = verdict_of(judge, train)
    assert "inconclusive" == verdict.status
    assert "a resume is broken in the old place already" in verdict.sentence
    assert "ckpt_resumable" in verdict.findings[0].fix


def test_a_link_where_a_resume_is_broken(judge: Judge) -> None:
    """What the files alone tell is told whatever a resume does."""

    def train(job_: Job) -> None:
        assert job_.resume_from is None
        job(latest="absolute")(job_)

    assert ("violated", 1) == ((verdict := verdict_of(judge, train)).status, len(verdict.findings))


def test_a_job_that_is_never_the_same(judge: Judge) -> None:
    """A difference that comes without a move is none of it."""

    def train(job_: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            noise = torch.frombuffer(bytearray(os.urandom(inputs.numel())), dtype=torch.uint8).float() / 255
            update.zero_grad()
            cross_entropy(model(inputs + noise.view_as(inputs)), targets).backward()
            update.step()

    verdict = verdict_of(judge, train)
    assert ("inconclusive", True) == (verdict.status, "not reproducible" in verdict.sentence)


def test_weights_that_are_loaded_at_the_end(judge: Judge) -> None:
    """The best is put into the model after the last step, from the place that a file names."""

    def train(job_: Job, *, absolute: bool) -> None:
        model = plain.network(norm=False)
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step == 1:
                torch.save(model.state_dict(), job_.path / "best.pt")
                named = str(job_.path / "best.pt") if absolute else "best.pt"
                (job_.path / "state.json").write_text(json.dumps({"best": named}), encoding="utf-8")
        best = job_.path / json.loads((job_.path / "state.json").read_text(encoding="utf-8"))["best"]
        if best.exists():
            model.load_state_dict(torch.load(best))

    verdict = verdict_of(judge, partial(train, absolute=True))
    expected = "training goes on alike from step_6.pt and ends with other weights: 4 of 4 parameters differ"
    assert ("violated", True) == (verdict.status, expected in verdict.sentence), verdict
    assert "held" == verdict_of(judge, partial(train, absolute=False)).status


def test_only_the_last_step_is_saved(judge: Judge) -> None:
    """No step follows that a resume could train."""

    def train(job_: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job_, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, LAST):
            inputs, targets = plain.batch(step)
            cross_entropy(model(inputs), targets).backward()
            update.step()

    assert "inconclusive" == verdict_of(judge, train).status


def test_the_contract_is_fit() -> None:
    """It is what `pytest_ckpt_contracts` asks for."""
    check_contract(Relocatable)


# -- transformers ------------------------------------------------------------------------------------------------------

EVALUATED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 8}
BEST_FIRST = {2: 0.1, 4: 0.5, 6: 0.6, 8: 0.7}


@pytest.fixture
def hf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Jobs of transformers, which old releases can resume with this variable only (bug HF-09)."""
    pytest.importorskip("transformers")
    from jobs import hf

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    return hf


def test_a_trainer_of_transformers(judge: Judge, hf: Any) -> None:
    """A resume alone needs no absolute path."""
    verdict = verdict_of(judge, lambda job: hf.run_repaired(job, max_steps=8, save_steps=3))
    assert "held" == verdict.status, verdict


def test_a_best_model_of_transformers(judge: Judge, hf: Any) -> None:
    """Up to 4.49 the record leads to the old directory; later releases find it again with the next save."""

    def train(job: Job, **given: Any) -> None:
        hf.run(job, script=BEST_FIRST, load_best_model_at_end=True, **EVALUATED, **given)

    verdict = verdict_of(judge, train)
    if hf.VERSION >= (4, 50):
        assert "held" == verdict.status, verdict
        return
    assert ("violated", "best", "checkpoint-2") == (
        verdict.status,
        verdict.findings[0].component,
        verdict.findings[0].checkpoint,
    )
    assert "training ended with other weights than checkpoint-2" in verdict.sentence
    assert "checkpoint-2" in verdict_of(judge, partial(train, save_total_limit=1)).sentence


def with_the_best_only(hf: Any, *, mended: bool) -> Callable[[Job], None]:
    """Return a Trainer that saves the best only, so that no save follows the first.

    Args:
        mended: whether the old path is replaced before the resume, as the message says.
    """

    def train(job: Job) -> None:
        if mended and job.resume_from is not None:
            state = Path(job.resume_from, "trainer_state.json")
            stored = json.loads(state.read_text(encoding="utf-8"))
            best = str(job.path / Path(stored["best_model_checkpoint"]).name)
            state.write_text(json.dumps({**stored, "best_model_checkpoint": best}), encoding="utf-8")
        given = {**EVALUATED, "save_strategy": "best", "load_best_model_at_end": True}
        hf.run(job, script=BEST_FIRST, **given)

    return train


def test_a_best_model_that_no_save_follows(judge: Judge, hf: Any) -> None:
    """The record is dropped with a warning, and the last weights are taken for the best."""
    if hf.VERSION < (5, 0):
        pytest.skip("save_strategy='best' records no checkpoint here")
    verdict = verdict_of(judge, with_the_best_only(hf, mended=False))
    expected = (
        "once the directory has been moved and training resumed from step 2, checkpoint-2 is not the recorded best any more: "
        "none is recorded any more, and training ended with other weights than checkpoint-2"
    )
    assert ("violated", expected) == (verdict.status, verdict.sentence)
    assert "trainer_state.json" in verdict.findings[0].cause
    assert "held" == verdict_of(judge, with_the_best_only(hf, mended=True)).status


@pytest.mark.parametrize("best", [False, True])
def test_a_trainer_that_was_built_with_the_old_path(tmp_path: Path, hf: Any, *, best: bool) -> None:
    """It goes on writing in the old place: that alone breaks nothing, and what it misses there can't be judged."""
    directory = tmp_path.resolve() / "job"
    directory.mkdir()
    job = Job(directory, frameworks=frameworks.builtin())
    given = {**EVALUATED, "load_best_model_at_end": True, "script": BEST_FIRST} if best else {"max_steps": 8}
    trainer = hf.trainer(job, callbacks=hf.repairs(), **{"save_steps": 3, **given})
    lab = Lab(
        job=job,
        body=lambda: trainer.train(resume_from_checkpoint=job.resume_from),
        folder=tmp_path / "evidence",
        seed_text="built before",
        frameworks=frameworks.builtin(),
    )
    (verdict,) = lab.judge([Relocatable()])
    assert ("inconclusive" if best else "held") == verdict.status, verdict
    assert not best or "the job went on writing into the old directory" in verdict.sentence


# -- Lightning ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("last", [None, True, "link"])
def test_a_trainer_of_lightning(judge: Judge, last: Any) -> None:
    """ModelCheckpoint links relatively."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    callback = {"every_n_epochs": 1, "save_top_k": -1, "save_last": last}
    verdict = verdict_of(judge, lambda job: pl.fit(LIGHTNING, job, pl.checkpoint(LIGHTNING, **callback)))
    assert "held" == verdict.status, verdict


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("best", [0, 2])
def test_a_best_model_of_lightning(judge: Judge, best: int) -> None:
    """In another directory the scores so far are dropped: the next save counts as the best, which may be right."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    def train(job: Job) -> None:
        module = pl.model(LIGHTNING, scores=lambda epoch: 0.1 if epoch == best else 0.5 + epoch)
        callback = pl.checkpoint(LIGHTNING, monitor="score", save_top_k=-1)
        pl.fit(LIGHTNING, job, callback, module=module, validation=pl.loader())

    verdict = verdict_of(judge, train)
    assert ("violated" if best == 0 else "held") == verdict.status, verdict
    if best == 0:
        assert "the record says checkpoints/epoch=2-step=15.ckpt" in verdict.sentence
        assert "best_k_models" in verdict.findings[0].cause
