"""The contract that what is announced is saved: what a job says, in many words, against what it does."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from transformers import Trainer

from jobs import hf, pl, plain
from pytest_ckpt.contracts.logging_saves import Logged
from pytest_ckpt.errors import InvalidArgument

PACKAGE: Final = "lightning.pytorch"

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Finding, Job, Verdict

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")


def tell(text: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{text}\n")


def loop(
    *,
    each: Callable[[Job, int, torch.nn.Module], object] | None = None,
    end: Callable[[Job, torch.nn.Module], object] | None = None,
) -> Callable[[Job], None]:
    """Return a job of 10 steps that saves at 4 and 8, calls back after each step that is saved, and in the end."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in range(1, 11):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if step in {4, 8}:
                saver.save(step)
                if each:
                    each(job, step, model)
        if end:
            end(job, model)

    return train


def judged(judge: Judge, train: Callable[[Job], object], **given: Any) -> Verdict:
    """Return the verdict of the contract."""
    return judge(train, Logged(**given))["logged"]


def assert_holds(judge: Judge, train: Callable[[Job], object], announced: int, **given: Any) -> None:
    """Fail unless the contract holds, with that many announcements."""
    verdict = judged(judge, train, **given)
    assert "held" == verdict.status, verdict
    said = "the announced save was made" if announced == 1 else f"all {announced} announced saves were made"
    assert said in verdict.sentence


def broken(judge: Judge, train: Callable[[Job], object], **given: Any) -> tuple[Finding, ...]:
    """Return the findings of the contract, which must be broken."""
    verdict = judged(judge, train, **given)
    assert "violated" == verdict.status, verdict
    assert {"log"} == {finding.component for finding in verdict.findings}
    return verdict.findings


# -- nothing is saved where it is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", " to {dir}", " to {dir}/final.pt", ": final.pt"])
def test_a_model_that_is_only_said_to_be_saved(judge: Judge, name: str) -> None:
    """The symptom of the run in which this project began: the log tells of a save that nobody makes."""

    def say(job: Job, _: object) -> None:
        tell("Training completed! Saving pre-trained model" + name.format(dir=job.dir))

    (finding,) = broken(judge, loop(end=say))
    assert 'after step 10, the last, the job says "Training completed! Saving pre-trained model' in finding.title
    assert finding.title.endswith("writes no model there" if name else "writes no model")
    assert ("saved at", "steps 4, 8") in finding.rows
    assert 10 == finding.step


@pytest.mark.parametrize("name", ["", " to {dir}", " to {dir}/final.pt", ": final.pt"])
def test_a_model_that_is_saved_as_it_is_said(judge: Judge, name: str) -> None:
    """The same words, followed by the save; so do words that come after it."""

    def save(job: Job, model: torch.nn.Module) -> None:
        tell("Training completed! Saving pre-trained model" + name.format(dir=job.dir))
        torch.save(model.state_dict(), job.path / "final.pt")

    assert_holds(judge, loop(end=save), 1)


@pytest.mark.parametrize(
    "words",
    [
        "saved checkpoint to {dir}/{name}",
        "Model saved: {dir}/{name}",
        "=> saving checkpoint '{name}'",
        "[step {step}] wrote checkpoint {name} (2 kB).",
        "INFO saved model weights in ./{name}, loss 0.31/0.42",
        "Best checkpoint at step {step}: val/loss improved from 0.5 to 0.3/0.4, saving model to {dir}/{name}",
    ],
)
@pytest.mark.parametrize("wrong", [False, True], ids=["made", "missed"])
def test_words_of_many_loops(judge: Judge, words: str, *, wrong: bool) -> None:
    """Paths are found in what loops commonly print; another name than that of the file is found out."""

    def say(job: Job, step: int, _: object) -> None:
        tell(words.format(dir=job.dir, step=step, name=f"{'model' if wrong else 'step'}_{step}.pt"))

    if wrong:
        findings = broken(judge, loop(each=say))
        assert [4, 8] == [finding.step for finding in findings]
    else:
        assert_holds(judge, loop(each=say), 2)


@pytest.mark.parametrize(
    "words",
    [
        "Loading the saved model from {dir}/model.pt",
        "checkpoints will be saved to {dir}/weights.pt every 4 steps",
        "could not find a saved checkpoint in {dir}/checkpoint-9",
        "Model saved to s3://bucket/model.pt",
        "saved metrics to {dir}/metrics.jsonl",
        "saved 100 samples to train.bin",
        "weights: 0.3, saving memory",
        "Saving checkpoints only on rank 0",
    ],
)
def test_words_that_announce_nothing(judge: Judge, words: str) -> None:
    """A plan, another matter or another place is no announcement: then there is nothing to compare."""

    def say(job: Job, step: int, _: object) -> None:
        tell(words.format(dir=job.dir, step=step))

    verdict = judged(judge, loop(each=say))
    assert "inconclusive" == verdict.status, verdict
    assert "announces no save" in verdict.findings[0].title


def test_a_log_that_is_written_by_logging(judge: Judge) -> None:
    """What a logger says counts as what is printed, once, although it stands in two outputs."""

    def say(job: Job, step: int, _: object) -> None:
        logger = logging.getLogger("trainer")
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.StreamHandler())
        logger.info("saved checkpoint %s/model_%d.pt", job.dir, step)

    findings = broken(judge, loop(each=say))
    assert [4, 8] == [finding.step for finding in findings]
    assert 'the job says "saved checkpoint model_4.pt", and no such file was ever there' in findings[0].title.replace(
        "INFO     trainer: ", ""
    )


def test_a_file_that_was_renamed_or_deleted_was_there(judge: Judge) -> None:
    """Rotation and renaming take nothing away from an announcement."""

    def rename(job: Job, step: int, model: torch.nn.Module) -> None:
        tell(f"saving model to {job.dir}/new_{step}.pt")
        torch.save(model.state_dict(), job.path / f"new_{step}.pt")
        (job.path / f"new_{step}.pt").replace(job.path / "last.pt")
        tell(f"saved model to {job.dir}/last.pt")
        if step == 8:
            (job.path / "step_4.pt").unlink()
            tell("saved checkpoint step_8.pt")

    assert_holds(judge, loop(each=rename), 5)


def test_what_is_said_of_the_best_once_more(judge: Judge) -> None:
    """A summary in the end tells of a save that was made long before."""
    assert_holds(judge, loop(end=lambda job, _: tell(f"Best model saved to {job.dir}/step_4.pt")), 1)


def test_a_file_that_was_cut_short(judge: Judge) -> None:
    """What is announced and kept has to be whole."""

    def cut(job: Job, step: int, _: object) -> None:
        tell(f"saved checkpoint {job.dir}/step_{step}.pt")
        if step == 8:
            os.truncate(job.path / "step_8.pt", 200)

    (finding,) = broken(judge, loop(each=cut))
    assert 'the job says "saved checkpoint step_8.pt", and step_8.pt is not whole in the end' in finding.title
    assert "step_8.pt" == finding.checkpoint


# -- words of the job's own --------------------------------------------------------------------------------------------


def test_a_pattern_with_a_step(judge: Judge) -> None:
    """The job's own words, and its own number of the step."""

    def say(_: Job, step: int, __: object) -> None:
        tell(f"persisted <{step}>")

    pattern = r"persisted <(?P<step>\d+)>"
    assert_holds(judge, loop(each=say), 2, pattern=pattern)
    (finding,) = broken(judge, loop(each=say, end=lambda *_: tell("persisted <10>")), pattern=pattern)
    assert finding.title.endswith('the job says "persisted <10>", and no checkpoint of step 10 was written')


def test_a_pattern_with_a_path(judge: Judge) -> None:
    """The job's own words, and the path in them."""
    pattern = r"persisted (?P<path>\S+)"
    assert_holds(judge, loop(each=lambda _, step, __: tell(f"persisted step_{step}.pt")), 2, pattern=pattern)
    findings = broken(judge, loop(each=lambda _, step, __: tell(f"persisted step-{step}.pt")), pattern=pattern)
    assert [4, 8] == [finding.step for finding in findings]


def test_a_pattern_that_fits_nothing(judge: Judge) -> None:
    """Nothing was compared, so nothing holds."""
    verdict = judged(judge, loop(), pattern="persisted")
    assert "inconclusive" == verdict.status
    assert "no line of the job's output fits the pattern 'persisted'" == verdict.findings[0].title


@pytest.mark.parametrize("pattern", ["(", "", 3])
def test_a_pattern_that_is_none(pattern: object) -> None:
    """The argument is named."""
    with pytest.raises(
        InvalidArgument, match="pattern must be a regular expression of lines that announce a save; got"
    ):
        Logged(pattern=pattern)  # type: ignore[arg-type]


def test_a_job_that_saves_elsewhere(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What lies elsewhere is not looked at."""
    other = tmp_path_factory.mktemp("other")
    verdict = judged(judge, loop(end=lambda *_: tell(f"saved model to {other}/model.pkl")))
    assert "inconclusive" == verdict.status
    assert "outside ckpt_job.dir" in verdict.findings[0].title


# -- frameworks --------------------------------------------------------------------------------------------------------


class Silent(Trainer):  # type: ignore[misc,unused-ignore]
    """Saves the first checkpoint only."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step < 5:
            super()._save_checkpoint(*args, **kwargs)


@pytest.mark.parametrize("verbose", [False, True])
def test_a_trainer_of_transformers(judge: Judge, *, verbose: bool) -> None:
    """Its callbacks are told of each save, and its log names each file."""

    def train(job: Job, kind: type[Trainer] = Trainer) -> None:
        level = {"log_level": "info"} if verbose else {}
        args = hf.arguments(job, max_steps=10, save_steps=4, save_total_limit=2, **level)
        trainer = kind(model=hf.Net(hf.Config()), args=args, train_dataset=hf.Samples(), data_collator=hf.collate)
        job.train(trainer)

    verdict = judged(judge, train)
    assert "held" == verdict.status, verdict
    findings = broken(judge, lambda job: train(job, Silent))
    assert "after step 8, transformers tells its callbacks that a save is finished, and wrote no file with a model" == (
        findings[0].title
    )


@pytest.mark.parametrize("verbose", [False, True])
def test_a_trainer_of_lightning(judge: Judge, *, verbose: bool) -> None:
    """Its checkpoints tell of each save in the log if they are asked to."""

    def train(job: Job) -> None:
        given = {"monitor": "val_loss", "save_top_k": 2, "save_last": True, "verbose": verbose}
        saving = pl.checkpoint(PACKAGE, dirpath=f"{job.dir}/ckpts", **given)
        pl.fit(PACKAGE, job, saving, validation=pl.loader())

    verdict = judged(judge, train)
    assert "held" == verdict.status, verdict
    assert f"all {4 if verbose else 2} announced saves were made" in verdict.sentence
