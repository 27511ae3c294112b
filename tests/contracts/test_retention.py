"""The contract on what is deleted again: each rule broken by a job, and the mended job beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

from jobs import hf, plain
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Finding, Job

#: So many that their numbers have one digit and two.
LAST: Final = 12

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")


def rotating(
    delete: Callable[[list[Path]], list[Path]],
    *,
    before: bool = False,
    last: int = LAST,
    cleanup: Callable[[Path], object] | None = None,
) -> Callable[[Job], None]:
    """Return a job that saves every second step and deletes what `delete` chooses of the files, sorted by number."""

    def rotate(folder: Path) -> None:
        for path in delete(sorted(folder.glob("step_*.pt"), key=number)):
            path.unlink()

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in range(saver.load() + 1, last + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 2 == 0:
                if before:
                    rotate(job.path)
                saver.save(step)
                if not before:
                    rotate(job.path)
        if cleanup is not None:
            cleanup(job.path)

    return train


def number(path: Path) -> int:
    """Return the number of a step in a name."""
    return int(path.stem.split("_")[1])


def oldest(keep: int) -> Callable[[list[Path]], list[Path]]:
    """Choose all but the newest."""
    return lambda paths: paths[:-keep]


def violations(judge: Judge, train: Callable[[Job], object], contract: Retention) -> tuple[Finding, ...]:
    """Return the findings of a contract that must be broken."""
    verdict = judge(train, contract)["retention"]
    assert "violated" == verdict.status, verdict
    assert {"retention"} == {finding.component for finding in verdict.findings}
    return verdict.findings


def sentence_held(judge: Judge, train: Callable[[Job], object], contract: Retention) -> str:
    """Fail unless the contract holds."""
    verdict = judge(train, contract)["retention"]
    assert "held" == verdict.status, verdict
    return verdict.sentence


# -- how many ----------------------------------------------------------------------------------------------------------


def test_room_is_made_without_counting_the_next(judge: Judge) -> None:
    """Deleting before a save leaves one too many; deleting after it is right."""
    (finding,) = violations(judge, rotating(oldest(2), before=True), Retention(2))
    assert "3 checkpoints lay on disk after step 6, at most 2 should" == finding.title
    assert ("on disk", "step_2.pt, step_4.pt, step_6.pt") in finding.rows
    assert "without counting the one to come" in finding.cause
    sentence = sentence_held(judge, rotating(oldest(2)), Retention(2))
    assert sentence.startswith(
        "never more than 2 checkpoints remained after a save, at most 2 may; 4 checkpoints deleted"
    )


def test_nothing_is_deleted(judge: Judge) -> None:
    """A limit that is never applied."""
    (finding,) = violations(judge, rotating(lambda _: []), Retention(3))
    assert "6 checkpoints lay on disk after step 12, at most 3 should" == finding.title
    assert "were not deleted" in finding.cause
    sentence_held(judge, rotating(lambda _: []), Retention(6))


def test_more_is_deleted_than_the_limit_asks_for(judge: Judge) -> None:
    """One is left where three should be kept."""
    (finding,) = violations(judge, rotating(oldest(1)), Retention(3))
    assert "1 checkpoint left of 3 that should be kept: 5 were deleted" == finding.title
    sentence_held(judge, rotating(oldest(3)), Retention(3))


def test_fewer_saves_than_the_limit(judge: Judge) -> None:
    """A limit that is never reached is kept."""
    sentence_held(judge, rotating(oldest(3), last=4), Retention(3))


# -- which -------------------------------------------------------------------------------------------------------------


def test_the_newest_is_deleted(judge: Judge) -> None:
    """A clean-up at the end takes the newest along; one that spares it does not."""

    def clean(folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).unlink()

    train = rotating(oldest(2), cleanup=lambda folder: clean(folder, "step_12.pt"))
    finding = violations(judge, train, Retention())[0]
    assert (
        "the newest checkpoint, step_12.pt of step 12, was deleted again: what is left goes no further than step 10"
        == finding.title
    )
    assert (12, "step_12.pt") == (finding.step, finding.checkpoint)
    sentence_held(judge, rotating(oldest(2), cleanup=lambda folder: clean(folder, "step_10.pt")), Retention())


def test_the_newest_lives_on_under_another_name(judge: Judge) -> None:
    """What is renamed at the end is not lost."""
    train = rotating(oldest(2), cleanup=lambda folder: (folder / "step_12.pt").rename(folder / "final.pt"))
    sentence_held(judge, train, Retention())


@pytest.mark.parametrize("keep", [None, 3])
def test_names_that_are_sorted_as_text(judge: Judge, keep: int | None) -> None:
    """step_10 comes before step_6 where names are sorted as text."""
    train = rotating(lambda paths: sorted(paths)[:-3])
    found = {finding.title: finding for finding in violations(judge, train, Retention(keep))}
    title = "after step 10 step_10.pt of step 10 was deleted, and step_4.pt of the older step 4 was kept"
    assert title in found
    assert "names are sorted as text, and 'step_10.pt' comes before 'step_4.pt'" in found[title].cause
    assert "deleted, oldest first" in sentence_held(judge, rotating(oldest(3)), Retention(keep))


@pytest.mark.parametrize("temporary", [".step_{}.pt.x7Qa", "step_{}.pt.part", "writing_{}.pt"])
def test_a_name_until_it_is_renamed_is_no_checkpoint_yet(judge: Judge, temporary: str) -> None:
    """What lies under a temporary name for a step is neither one too many nor deleted; wrong deletions are still found."""
    by_text = renaming(temporary, lambda paths: sorted(paths)[:-2])
    for keep in (None, 2):
        sentence_held(judge, renaming(temporary, oldest(2)), Retention(keep))
        newest, *_ = violations(judge, by_text, Retention(keep))
        assert f"the newest checkpoint, {temporary.format(12)} of step 12, was deleted again" in newest.title
    *_, order = violations(judge, by_text, Retention(2))
    assert f"{temporary.format(10)} of step 10 was deleted, and step_6.pt of the older" in order.title
    (finding,) = violations(judge, renaming(temporary, oldest(3)), Retention(2))
    assert ("on disk", "step_2.pt, step_4.pt, step_6.pt") in finding.rows


def renaming(temporary: str, delete: Callable[[list[Path]], list[Path]]) -> Callable[[Job], None]:
    """Return a job whose saves get their names one step later, when they are on the disk."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        for step in range(1, LAST + 2):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 2 == 0:
                state = {"model": model.state_dict(), "optimizer": update.state_dict()}
                torch.save(state, job.path / temporary.format(step))
            elif step > 1:
                (job.path / temporary.format(step - 1)).rename(job.path / f"step_{step - 1}.pt")
                for path in delete(sorted(job.path.glob("step_*.pt"), key=number)):
                    path.unlink()

    return train


def by_metric(paths: list[Path]) -> list[Path]:
    """Keep steps 2 and the newest, as where step 2 is the best."""
    return [path for path in paths[:-1] if number(path) != 2]


def test_an_older_one_is_kept_because_it_is_the_best(judge: Judge) -> None:
    """It has to be named where a limit is; without one, the job may have reasons of its own."""
    titles = [finding.title for finding in violations(judge, rotating(by_metric), Retention(2))]
    assert ["after step 6 step_4.pt of step 4 was deleted, and step_2.pt of the older step 2 was kept"] == titles
    sentence_held(judge, rotating(by_metric), Retention(1, best=2))
    sentence_held(judge, rotating(by_metric), Retention())


def test_the_best_is_deleted(judge: Judge) -> None:
    """The best step has to stay, and to be saved at all."""
    (finding,) = violations(judge, rotating(oldest(2)), Retention(2, best=4))
    title = "the best checkpoint, of step 4, is not on disk: step_4.pt held it and was deleted again"
    assert (title, 4, "step_4.pt") == (finding.title, finding.step, finding.checkpoint)
    (finding,) = violations(judge, rotating(oldest(2)), Retention(2, best=3))
    assert "only steps 2, 4, 6, 8, 10, 12 were saved" in finding.title


def test_one_file_that_is_overwritten(judge: Judge) -> None:
    """Older contents of the same name were not deleted."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update, name="ckpt.pt")
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()

    sentence_held(judge, train, Retention(1))
    assert "not_applicable" == judge(train, Retention())["retention"].status


# -- what is of others -------------------------------------------------------------------------------------------------


def earlier_run(judge: Judge, last: int, *, files: tuple[str, ...] = ()) -> Path:
    """Train in a directory of its own and put what it left into the directory of the next job."""
    judge(rotating(oldest(2), last=last), Retention(2))
    left, directory = judge.lab.job.path, judge.next_directory
    for path in left.glob("*.pt"):
        shutil.copy(path, directory)
    for name in files:
        (directory / name).write_text("by hand", encoding="utf-8")
    return directory


def test_checkpoints_of_an_earlier_run_are_deleted(judge: Judge) -> None:
    """A run that starts anew rotates those of another run away, with whatever else it finds."""
    earlier_run(judge, 4, files=("step_0.pt", "notes.txt"))
    (finding,) = violations(judge, rotating(oldest(2), last=8), Retention(2))
    assert "2 checkpoints were deleted that this run did not write: step_2.pt, step_4.pt" == finding.title
    assert ("deleted", "step_0.pt, step_2.pt, step_4.pt") in finding.rows
    assert "train into an empty directory" in finding.fix


def test_a_run_that_goes_on_deletes_its_own_older_checkpoints(judge: Judge) -> None:
    """What it resumed from, and what lay beside it, is of the same run."""
    directory = earlier_run(judge, 4, files=("notes.txt",))

    def resumed(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        state = torch.load(directory / "step_4.pt", weights_only=False)
        for name, part in saver.parts.items():
            part.load_state_dict(state[name])
        for step in range(5, 9):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 2 == 0:
                saver.save(step)
                for path in oldest(2)(sorted(job.path.glob("step_*.pt"), key=number)):
                    path.unlink()

    sentence_held(judge, resumed, Retention(2))


def test_what_is_left_of_a_crash_may_be_removed(judge: Judge) -> None:
    """A temporary file of an earlier run is nobody's checkpoint, and a file that is moved is not gone."""
    directory = judge.next_directory
    (directory / "step_2.pt.tmp").write_bytes(b"half")
    (directory / "log.txt").write_text("old", encoding="utf-8")

    def clean(folder: Path) -> None:
        (folder / "step_2.pt.tmp").unlink()
        (folder / "log.txt").rename(folder / "log.1.txt")

    sentence_held(judge, rotating(oldest(2), cleanup=clean), Retention(2))


# -- transformers ------------------------------------------------------------------------------------------------------

EVALUATED: Final[dict[str, Any]] = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 8}


@pytest.mark.parametrize("limit", [1, 2])
def test_the_limit_of_a_trainer(judge: Judge, limit: int) -> None:
    """Without arguments the limit is save_total_limit."""

    def train(job: Job) -> None:
        hf.run(job, max_steps=8, save_steps=2, save_total_limit=limit)

    assert f"at most {limit} may" in sentence_held(judge, train, Retention())
    assert "violated" == judge(lambda job: hf.run(job, max_steps=8, save_steps=2), Retention(limit))["retention"].status


def test_the_best_of_a_trainer_is_spared(judge: Judge) -> None:
    """The best and the newest are kept with a limit of two."""

    def train(job: Job) -> None:
        script = {2: 0.5, 4: 0.1, 6: 0.7, 8: 0.9}
        hf.run(job, script=script, save_total_limit=2, load_best_model_at_end=True, **EVALUATED)

    sentence_held(judge, train, Retention())
    sentence_held(judge, train, Retention(best=4))


def test_a_trainer_without_a_limit(judge: Judge) -> None:
    """Where nothing is to be deleted and nothing was, there is nothing to judge."""
    verdict = judge(lambda job: hf.run(job, max_steps=4, save_steps=2), Retention())["retention"]
    assert "not_applicable" == verdict.status, verdict


def test_a_trainer_that_goes_on(judge: Judge) -> None:
    """A run that resumes by itself rotates the checkpoints of the run that it goes on with."""

    def train(job: Job, last: int) -> None:
        found = sorted(Path(job.dir).glob("checkpoint-*"), key=os.path.getmtime)
        given = hf.trainer(job, max_steps=last, save_steps=2, save_total_limit=2)
        given.train(resume_from_checkpoint=str(found[-1]) if found else None)

    judge(lambda job: train(job, 4), Retention())
    shutil.copytree(judge.lab.job.path, judge.next_directory, dirs_exist_ok=True)
    sentence_held(judge, lambda job: train(job, 8), Retention())
    assert {"checkpoint-6", "checkpoint-8"} == {c.path for c in judge.baseline.kept}


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keep": 0}, "keep must be a number of checkpoints, 1 or more"),
        ({"keep": True}, "keep must be a number of checkpoints, 1 or more"),
        ({"keep": 1.5}, "keep must be a number of checkpoints, 1 or more"),
        ({"best": 0}, "best must be the number of the best step, 1 or more"),
        ({"best": "4"}, "best must be the number of the best step, 1 or more"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    """The marker's arguments are validated when the tests are collected."""
    with pytest.raises(InvalidArgument, match=message):
        Retention(**given)
