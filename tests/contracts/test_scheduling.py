"""The contract on which steps are saved: missing, unexpected and repeated ones, with the mended job beside each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from transformers import Trainer, TrainerCallback

from jobs import hf, plain
from pytest_ckpt.contracts.scheduling import Steps
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from conftest import Judge
    from pytest_ckpt import Finding, Job

LAST: Final = 7

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")


def loop(
    after: Callable[[plain.Saver, int], object], *, end: Callable[[plain.Saver], object] | None = None
) -> Callable[[Job], None]:
    """Return a job that calls back after each step, and when training has ended."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            after(saver, step)
        if end is not None:
            end(saver)

    return train


def saving(steps: Iterable[int]) -> Callable[[Job], None]:
    """Return a job that saves after these steps."""
    chosen = set(steps)
    return loop(lambda saver, step: saver.save(step) if step in chosen else None)


def violations(judge: Judge, train: Callable[[Job], object], contract: Steps) -> tuple[Finding, ...]:
    """Return the findings of a contract that must be broken."""
    verdict = judge(train, contract)["steps"]
    assert "violated" == verdict.status, verdict
    return verdict.findings


def assert_holds(judge: Judge, train: Callable[[Job], object], contract: Steps) -> None:
    """Fail unless the contract holds."""
    verdict = judge(train, contract)["steps"]
    assert "held" == verdict.status, verdict


# -- which steps -------------------------------------------------------------------------------------------------------


def test_a_missing_last_step(judge: Judge) -> None:
    """Every third of seven steps leaves out the last, which belongs to the promise unless it says otherwise."""
    (finding,) = violations(judge, saving([3, 6]), Steps(every=3))
    assert "1 of 3 expected saves was not made (step 7)" == finding.title
    assert (("expected", "steps 3, 6, 7"), ("saved at", "steps 3, 6"), ("missing", "step 7")) == finding.rows
    assert ("steps", 7) == (finding.component, finding.step)
    assert "nothing is saved when training has ended" in finding.cause
    assert_holds(judge, saving([3, 6, 7]), Steps(every=3))
    assert_holds(judge, saving([3, 6]), Steps(every=3, final=False))


def test_missing_and_unexpected_steps_are_both_named(judge: Judge) -> None:
    """The sets are compared both ways."""
    (finding,) = violations(judge, saving([2, 3, 6]), Steps([3, 5, 6]))
    assert "1 of 3 expected saves was not made (step 5), and 1 was made unexpectedly (step 2)" == finding.title
    assert_holds(judge, saving([2, 3, 6]), Steps((2, 3, 6)))


def test_an_unexpected_last_step(judge: Judge) -> None:
    """What is not to be saved is not saved."""
    (finding,) = violations(judge, saving([3, 6, 7]), Steps(every=3, final=False))
    assert "2 saves were expected, and 1 was made unexpectedly (step 7)" == finding.title
    assert "second place that saves" in finding.cause


def test_saves_before_the_update_come_one_step_early(judge: Judge) -> None:
    """A loop that saves at the top of its body is told so."""

    def train(job: Job, *, early: bool) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in range(1, LAST + 1):
            if early and step % 3 == 0:
                saver.save(step)
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if not early and step % 3 == 0:
                saver.save(step)

    (finding,) = violations(judge, lambda job: train(job, early=True), Steps([3, 6]))
    assert (
        "2 of 2 expected saves were not made (steps 3, 6), and 2 were made unexpectedly (steps 2, 5)" == finding.title
    )
    assert "before the optimizer's update" in finding.cause
    assert_holds(judge, lambda job: train(job, early=False), Steps([3, 6]))


def test_what_is_deleted_again_was_saved(judge: Judge) -> None:
    """The promise is on saving; rotation does not break it."""

    def after(saver: plain.Saver, step: int) -> None:
        if step % 2 == 0:
            saver.save(step)
        if step in {5, 7}:
            (saver._job.path / f"step_{step - 3}.pt").unlink()  # noqa: SLF001 - the job's directory

    assert_holds(judge, loop(after), Steps([2, 4, 6]))


def test_copies_and_exports_beside_the_checkpoints(judge: Judge) -> None:
    """last.pt at every step, best.pt at some and the mere weights in the end are no unexpected saves and no second ones."""

    def after(saver: plain.Saver, step: int) -> None:
        folder, model = saver._job.path, saver.parts["model"]  # noqa: SLF001 - the job's directory
        if step % 3 == 0 or step == LAST:
            saver.save(step)
        torch.save({name: part.state_dict() for name, part in saver.parts.items()}, folder / "last.pt")
        if step in {2, 3}:
            torch.save({name: part.state_dict() for name, part in saver.parts.items()}, folder / "best_3.pt")
        if step == LAST:
            torch.save(model.state_dict(), folder / "model.pt")

    assert_holds(judge, loop(after), Steps(every=3))


def test_the_last_step_may_lie_in_a_file_without_a_number(judge: Judge) -> None:
    """final.pt holds the last step as well as step_7.pt would."""

    def end(saver: plain.Saver) -> None:
        torch.save(
            {name: part.state_dict() for name, part in saver.parts.items()},
            saver._job.path / "final.pt",  # noqa: SLF001 - the job's directory
        )

    train = loop(lambda saver, step: saver.save(step) if step % 3 == 0 else None, end=end)
    assert_holds(judge, train, Steps(every=3))


def test_nothing_was_saved(judge: Judge) -> None:
    """All steps are missing; and none is where none should be."""
    (finding,) = violations(judge, saving([]), Steps([3]))
    assert "1 of 1 expected saves was not made (step 3)" == finding.title
    assert_holds(judge, saving([]), Steps([]))


def test_a_run_that_is_too_short(judge: Judge) -> None:
    """A step that was never trained can't be saved."""
    (finding,) = violations(judge, saving([3, 6]), Steps([3, 6, 20]))
    assert "training ended at step 7." == finding.cause


# -- twice -------------------------------------------------------------------------------------------------------------


def test_the_same_file_is_written_twice(judge: Judge) -> None:
    """The interval is due at the last step, and the save at the end writes the same file again."""

    def train(*, guarded: bool) -> Callable[[Job], None]:
        saved: list[int] = []

        def after(saver: plain.Saver, step: int) -> None:
            if step in {4, 7}:
                saver.save(step)
                saved.append(step)

        def end(saver: plain.Saver) -> None:
            if not guarded or saved[-1] != LAST:
                saver.save(LAST)

        return loop(after, end=end)

    (finding,) = violations(judge, train(guarded=False), Steps([4, 7]))
    assert "step 7 was saved twice: step_7.pt was written 2 times after it" == finding.title
    assert (7, "steps", "step_7.pt") == (finding.step, finding.component, finding.checkpoint)
    assert "an interval and the end of training" in finding.cause
    assert_holds(judge, train(guarded=True), Steps([4, 7]))


def test_a_file_that_is_renamed_into_place_twice(judge: Judge) -> None:
    """An atomic save that is made twice is made twice."""

    def save(saver: plain.Saver, step: int) -> None:
        path = saver._job.path / f"step_{step}.pt"  # noqa: SLF001 - the job's directory
        torch.save({name: part.state_dict() for name, part in saver.parts.items()}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)  # noqa: PTH105 - as training code does

    def after(saver: plain.Saver, step: int) -> None:
        if step in {4, 7}:
            save(saver, step)

    (finding,) = violations(judge, loop(after, end=lambda saver: save(saver, LAST)), Steps([4, 7]))
    assert "step 7 was saved twice: step_7.pt was written 2 times after it" == finding.title
    assert_holds(judge, loop(after), Steps([4, 7]))


def test_one_step_under_two_numbers(judge: Judge) -> None:
    """The interval counts from 0 and the end from 1: the last step is there twice."""
    every = loop(
        lambda saver, step: saver.save(step - 1) if step in {4, 7} else None, end=lambda saver: saver.save(LAST)
    )
    (finding,) = violations(judge, every, Steps([4, 7]))
    assert "step 7 was saved twice: in step_6.pt and step_7.pt" == finding.title
    assert_holds(judge, saving([4, 7]), Steps([4, 7]))


def test_several_objects_in_one_file_are_one_save(judge: Judge) -> None:
    """A file that stays open while the parts are written to it one after the other is written once."""

    def after(saver: plain.Saver, step: int) -> None:
        if step in {4, 7}:
            with (saver._job.path / f"step_{step}.pt").open("wb") as file:  # noqa: SLF001 - the job's directory
                for part in saver.parts.values():
                    torch.save(part.state_dict(), file)

    verdict = judge(loop(after), Steps([4, 7]))["steps"]
    assert not any("twice" in finding.title for finding in verdict.findings), verdict


def test_two_models_of_a_step_are_not_the_same_step_twice(judge: Judge) -> None:
    """Files that hold a model each share a number of steps and differ in another one."""

    def train(job: Job) -> None:
        models = [plain.network(), plain.network()]
        updates = [torch.optim.AdamW(model.parameters(), lr=0.05) for model in models]
        for step in range(1, LAST + 1):
            for model, update in zip(models, updates, strict=True):
                inputs, targets = plain.batch(step)
                update.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs), targets).backward()
                update.step()
            if step % 3 == 0:
                for number, (model, update) in enumerate(zip(models, updates, strict=True)):
                    state = {"model": model.state_dict(), "optimizer": update.state_dict()}
                    torch.save(state, job.path / f"step_{step}_model_{number}.pt")

    verdict = judge(train, Steps([3, 6]))["steps"]
    assert not any("twice" in finding.title for finding in verdict.findings), verdict


# -- transformers ------------------------------------------------------------------------------------------------------


class SaveAt(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Saves at a step of its own."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a save."""
        del args
        if state.global_step == 5:
            control.should_save = True


@pytest.mark.skipif(hf.VERSION < (4, 42), reason="bug HF-01 of this release: the last step is not saved")
def test_the_configuration_of_a_trainer_says_which_steps(judge: Judge) -> None:
    """Without arguments the steps follow from the settings; a callback of the job's own may save more."""
    given = {"max_steps": LAST, "save_steps": 3}
    assert_holds(judge, lambda job: hf.run(job, **given), Steps())
    assert frozenset({3, 6, 7}) == judge.lab.evidence.advisor.promised_steps()
    (finding,) = violations(judge, lambda job: hf.run(job, **given), Steps([3, 6]))
    assert "2 saves were expected, and 1 was made unexpectedly (step 7)" == finding.title
    assert_holds(judge, lambda job: hf.run(job, callbacks=[SaveAt()], **given), Steps())
    assert_holds(judge, lambda job: hf.run(job, callbacks=[SaveAt()], **given), Steps([3, 5, 6, 7]))


class Forgetful(Trainer):  # type: ignore[misc,unused-ignore]
    """A Trainer whose save is skipped once, as where a full disk is caught."""

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step != 4:
            super()._save_checkpoint(*args, **kwargs)


class Doubtful(Trainer):  # type: ignore[misc,unused-ignore]
    """A Trainer that saves once more when it has trained."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train and save."""
        result = super().train(*args, **kwargs)
        self._save_checkpoint(self.model, None)  # type: ignore[arg-type,unused-ignore]
        return result


def trained_by(kind: type[Trainer]) -> Callable[[Job], None]:
    """Return a job of a trainer of this class."""

    def train(job: Job) -> None:
        trainer = kind(
            model=hf.Net(hf.Config()),
            args=hf.arguments(job, max_steps=6, save_steps=2),
            train_dataset=hf.Samples(),
            data_collator=hf.collate,
        )
        trainer.train()

    return train


def test_a_save_of_a_trainer_that_is_skipped(judge: Judge) -> None:
    """The settings promise a step that is not there."""
    (finding,) = violations(judge, trained_by(Forgetful), Steps())
    assert "1 of 3 expected saves was not made (step 4)" == finding.title
    assert_holds(judge, trained_by(Trainer), Steps())


def test_a_trainer_saves_its_last_step_twice(judge: Judge) -> None:
    """The last checkpoint is written by the strategy and by the job."""
    (finding,) = violations(judge, trained_by(Doubtful), Steps())
    assert "step 6 was saved twice: checkpoint-6 was written 2 times after it" == finding.title


def test_a_loop_of_no_framework_has_no_configuration(judge: Judge) -> None:
    """What is not known is not promised."""
    verdict = judge(saving([3]), Steps())["steps"]
    assert "not_applicable" == verdict.status, verdict


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 3}, "steps must list optimizer steps"),
        ({"steps": [3, -1]}, "steps must list optimizer steps"),
        ({"steps": [3, "6"]}, "steps must list optimizer steps"),
        ({"steps": [3, 3]}, "names a step more than once"),
        ({"every": 0}, "every must be a whole number of steps"),
        ({"every": 2.5}, "every must be a whole number of steps"),
        ({"every": 3, "final": 1}, "final must be True or False"),
        ({"steps": [3], "every": 3}, "give either steps or every"),
        ({"final": True}, "without every"),
        ({"steps": [3], "final": True}, "without every"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], message: str) -> None:
    """The marker's arguments are validated when the tests are collected."""
    with pytest.raises(InvalidArgument, match=message):
        Steps(**given)
