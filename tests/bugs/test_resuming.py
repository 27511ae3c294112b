"""Bugs of resuming: other batches, a fresh optimizer, another schedule, another end."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from jobs import hf
from pytest_ckpt import tiny
from pytest_ckpt.contracts.completeness import Complete
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.contracts.latest import Latest
from pytest_ckpt.contracts.loading import Loadable
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep
from pytest_ckpt.contracts.stability import StableSchedule
from pytest_ckpt.records.experiment import resume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bugs.conftest import Shows
    from conftest import Judge
    from pytest_ckpt import Job, RunRecord

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")

TWELVE: Final[Mapping[str, Any]] = {"max_steps": 12, "save_steps": 1}


def job(**given: Any) -> Callable[[Job], None]:
    """Return a job with these settings."""
    return lambda job: hf.run(job, **given)


def test_hf_04_order_of_the_first_epoch(shows: Shows) -> None:
    """Resumed within a later epoch, training goes on in the order of the first one: samples are repeated and missed."""
    shows("HF-04", job(**TWELVE), Resumable(steps=[7]))


def test_hf_04_at_the_end_of_an_epoch(shows: Shows) -> None:
    """Resumed at the end of an epoch, the next one comes in its own order."""
    shows.not_with(job(**TWELVE), Resumable(steps=[5, 10]))


def test_hf_07_batch_size_is_ignored(judge: Judge, shows: Shows) -> None:
    """A resumed run ignores its own per_device_train_batch_size and takes the one stored in the checkpoint."""

    def train(job: Job) -> None:
        hf.run(job, max_steps=6, save_steps=3, per_device_train_batch_size=4 if job.is_baseline else 2)

    resumed = resumed_from(judge, train, "checkpoint-3")
    sizes = {shape[0] for step in resumed.steps for shape in step.batch_shapes}
    seen = f"resumed with batches of 2, trained on batches of {', '.join(map(str, sorted(sizes)))}"
    shows.by_hand("HF-07", seen, otherwise="resumed with batches of 2, trained on batches of 2")


def test_hf_07_15_changed_settings(shows: Shows) -> None:
    """A contract finds both: another size of batches, another interval of saves."""
    shows("HF-07", job(max_steps=6, save_steps=3), StableSchedule(change={"per_device_train_batch_size": 2}))
    shows("HF-15", job(max_steps=8, save_steps=4), StableSchedule(change={"save_steps": 2}))


def resumed_from(judge: Judge, train: Callable[[Job], object], checkpoint: str) -> RunRecord:
    """Run a job and resume it from a checkpoint, as the fixture ckpt_run does."""
    judge(train)
    run = judge.lab.run(resume(checkpoint))
    assert run.outcome.ok, run.outcome
    return run


def saved_at(run: RunRecord) -> str:
    """Return the steps that a run of the Trainer saved, as text."""
    names = {save.path.split("/", 1)[0] for save in run.saves if save.by != "open"}
    return steps_text(sorted(int(name.removeprefix("checkpoint-")) for name in names))


def more_often_when_resumed(job: Job) -> None:
    """Save every 4 steps, and every 2 when resumed."""
    hf.run(job, max_steps=8, save_steps=4 if job.is_baseline else 2)


def test_hf_15_interval_is_ignored(judge: Judge, shows: Shows) -> None:
    """A resumed run ignores its own save_steps and takes the one stored in the checkpoint."""
    seen = saved_at(resumed_from(judge, more_often_when_resumed, "checkpoint-4"))
    sentence = f"resumed from step 4 of 8 with save_steps=2, saved at {seen}"
    shows.by_hand("HF-15", sentence, otherwise="resumed from step 4 of 8 with save_steps=2, saved at steps 6, 8")


def test_hf_15_interval_changed_in_the_checkpoint(judge: Judge) -> None:
    """Where the interval is changed in trainer_state.json too, the resumed run saves as often as it says."""

    def train(job: Job) -> None:
        if job.resume_from is not None:
            state = Path(job.resume_from, "trainer_state.json")
            stored = json.loads(state.read_text(encoding="utf-8"))
            state.write_text(json.dumps({**stored, "save_steps": 2}), encoding="utf-8")
        more_often_when_resumed(job)

    assert "steps 6, 8" == saved_at(resumed_from(judge, train, "checkpoint-4"))


def test_hf_09_weights_only(shows: Shows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch 2.6 and newer refuse to load the random states that old releases store: no checkpoint can be resumed."""
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    shows("HF-09", job(max_steps=6, save_steps=2), Resumable())


def test_hf_09_full_load(shows: Shows, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that allows it the same checkpoints can be resumed."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    shows.not_with(job(max_steps=5, save_steps=2), Resumable())


def without_best(job: Job) -> None:
    """Resume with the newest checkpoint alone, as when it was copied to another machine."""
    if job.resume_from is not None:
        for other in set(job.path.glob("checkpoint-*")) - {Path(job.resume_from)}:
            shutil.rmtree(other)
    hf.run(
        job,
        script={2: 0.1, 4: 0.5, 6: 0.7},
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        save_total_limit=1,
        load_best_model_at_end=True,
    )


def test_hf_10_the_best_checkpoint_is_gone(shows: Shows) -> None:
    """Resumed without the best checkpoint beside it, training crashes in its clean-up, after the last step."""
    shows("HF-10", without_best, Resumable("runs", steps=[4]))


def test_hf_16_save_only_model(shows: Shows) -> None:
    """A checkpoint of save_only_model=True is resumed with a fresh optimizer and schedule, and nothing is said."""
    shows("HF-16", job(max_steps=10, save_steps=5, save_only_model=True), Resumable())


def test_hf_16_whole_checkpoint(shows: Shows) -> None:
    """A whole checkpoint brings optimizer and schedule back."""
    shows.not_with(job(max_steps=10, save_steps=5), Resumable())


def stops_early(**given: Any) -> Callable[[Job], None]:
    """Return a job that stops at step 8, after three evaluations without progress."""
    return lambda job: hf.run(
        job,
        script={2: 0.1},
        max_steps=20,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        load_best_model_at_end=True,
        callbacks=[transformers.EarlyStoppingCallback(3)],
        **given,
    )


def test_hf_17_patience_is_counted_anew(shows: Shows) -> None:
    """The patience of EarlyStoppingCallback is not restored: the resumed run trains longer."""
    shows("HF-17", stops_early(), Resumable("runs", steps=[6]))


@pytest.mark.skipif(hf.VERSION < (4, 42), reason="this release has no restore_callback_states_from_checkpoint")
def test_hf_17_states_of_callbacks_restored(shows: Shows) -> None:
    """Where the states of callbacks are restored, the resumed run stops at the same step."""
    shows.not_with(stops_early(restore_callback_states_from_checkpoint=True), Resumable("runs", steps=[6]))


class LosesOptimizer(transformers.TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Removes optimizer.pt from each checkpoint, as a save that was cut short leaves it."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remove the file."""
        del control
        Path(args.output_dir, f"checkpoint-{state.global_step}", "optimizer.pt").unlink()


def test_hf_19_optimizer_file_is_missing(shows: Shows) -> None:
    """A checkpoint without optimizer.pt is resumed with a fresh optimizer and schedule, and nothing is said."""
    shows("HF-19", job(max_steps=12, save_steps=5, callbacks=[LosesOptimizer]), Resumable(steps=[10]))


def test_hf_19_checkpoint_without_an_optimizer(shows: Shows) -> None:
    """The missing file is seen without resuming."""
    shows("HF-19", job(max_steps=12, save_steps=5, callbacks=[LosesOptimizer]), Complete())


def test_hf_19_optimizer_file_is_there(shows: Shows) -> None:
    """With the file the same job goes on as if it had never stopped."""
    shows.not_with(job(max_steps=12, save_steps=5), Resumable(steps=[10]), Complete())


GROUPED: Final[Mapping[str, Any]] = {**TWELVE, "train_sampling_strategy": "group_by_length"}


def test_hf_20_grouped_by_length(shows: Shows) -> None:
    """The sampler that groups by length comes to other batches when resumed within a later epoch."""
    shows("HF-20", job(data=hf.Samples(lengths=True), **GROUPED), Resumable(steps=[7]))


def test_hf_20_at_the_end_of_an_epoch(shows: Shows) -> None:
    """Resumed at the end of an epoch it comes to the same batches."""
    shows.not_with(job(data=hf.Samples(lengths=True), **GROUPED), Resumable(steps=[5, 10]))


def test_hf_22_stream_in_its_second_pass(shows: Shows) -> None:
    """A stream shorter than max_steps loses its place when it is resumed in its second pass."""
    shows("HF-22", job(data=hf.Stream(), **TWELVE), Resumable(steps=[7]))


def test_hf_22_stream_in_its_first_pass(shows: Shows) -> None:
    """In its first pass the place is found again."""
    shows.not_with(job(data=hf.Stream(), **TWELVE), Resumable(steps=[3]))


def test_hf_30_update_across_two_epochs(shows: Shows) -> None:
    """Gradients accumulated at the end of an epoch for an update in the next one are lost when it is resumed."""
    shows("HF-30", job(max_steps=5, save_steps=2, gradient_accumulation_steps=2), Resumable(steps=[2]))


def test_hf_30_updates_within_epochs(shows: Shows) -> None:
    """Where accumulation divides the batches of an epoch there is nothing to lose."""
    shows.not_with(job(max_steps=5, save_steps=2, gradient_accumulation_steps=hf.EPOCH), Resumable())


def cut_short(*, missing: str, marked: bool) -> Callable[[Job], object]:
    """Return a job whose save of step 8 ends early: it lacks a file, and is marked as incomplete if that is asked for."""

    class Cut(transformers.TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Leaves what a save leaves that was interrupted."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Remove the file."""
            del control
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            if state.global_step == 8:
                (folder / missing).unlink()
                if marked:
                    (folder / "checkpoint-is-incomplete.txt").touch()

    return lambda job: job.train(hf.trainer(job, max_steps=10, save_steps=4, callbacks=[Cut()]))


def test_hf_18_the_highest_number_is_taken(shows: Shows) -> None:
    """A checkpoint without its trainer_state.json is chosen all the same, and the restart fails."""
    shows("HF-18", cut_short(missing="trainer_state.json", marked=False), Latest(damaged=False, fall_back=True))


def test_hf_26_the_mark_is_not_read(shows: Shows) -> None:
    """A checkpoint that is marked as incomplete is resumed from, without its optimizer."""
    shows("HF-26", cut_short(missing="optimizer.pt", marked=True), Latest(damaged=False))


def test_hf_18_26_a_whole_one(shows: Shows) -> None:
    """The newest whole checkpoint is found."""
    shows.not_with(lambda job: job.train(hf.trainer(job, max_steps=10, save_steps=4)), Latest(damaged=False))


def adapted(init: str) -> Callable[[Job], object]:
    """Return a job that trains a LoRA adapter on a base that is the same in every process, as one that was loaded."""

    def train(job: Job) -> None:
        peft = pytest.importorskip("peft")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            base = hf.Net(hf.Config(dropout=0.0))
        config = peft.LoraConfig(r=2, target_modules=["first"], init_lora_weights=init)
        job.train(hf.trainer(job, model=peft.get_peft_model(base, config), max_steps=4, save_steps=2))

    return train


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_peft_02_a_random_decomposition(shows: Shows) -> None:
    """PiSSA by a randomised decomposition changes the base, in each process otherwise, and the base is not saved."""
    shows("PEFT-02", adapted("pissa_niter_2"), Resumable(steps=[2]))


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_peft_02_an_exact_decomposition(shows: Shows) -> None:
    """PiSSA by an exact decomposition changes the base in each process alike."""
    shows.not_with(adapted("pissa"), Resumable(steps=[2]))


def language_model(arch: str) -> Callable[[Job], None]:
    """Return a job that trains a tiny language model."""

    def train(job: Job) -> None:
        arguments = hf.arguments(job, max_steps=6, save_steps=3)
        model, data = tiny.causal_lm(arch), tiny.text()
        made = transformers.Trainer(model, arguments, train_dataset=data, callbacks=hf.repairs())
        made.train(resume_from_checkpoint=job.resume_from)

    return train


def test_hf_31_experts_are_not_restored(shows: Shows) -> None:
    """Release 5 stacks experts in memory and saves them one by one; a resume does not find them and trains new ones."""
    shows("HF-31", language_model("mixtral"), Resumable(steps=[3]))


def test_hf_31_they_are_in_the_checkpoint(shows: Shows) -> None:
    """All that was trained is saved, and from_pretrained reads it."""
    shows.not_with(language_model("mixtral"), FinalStep(), Faithful(), Loadable())


def test_hf_31_a_model_without_experts(shows: Shows) -> None:
    """A dense model is resumed exactly."""
    shows.not_with(language_model("mistral"), Resumable(steps=[3]))


def compiled(*, by_trainer: bool) -> Callable[[Job], None]:
    """Return a job whose model is compiled: by the Trainer, or before it gets to it."""

    def train(job: Job) -> None:
        given = {"torch_compile": True, "torch_compile_backend": "eager"} if by_trainer else {}
        built = hf.Net(hf.Config())
        model: Any = built if by_trainer else torch.compile(built, backend="eager")
        hf.run(
            job, model=model, max_steps=4, save_steps=2, label_names=["labels"], remove_unused_columns=False, **given
        )

    return train


def test_hf_32_a_model_that_was_compiled_before(shows: Shows) -> None:
    """It is saved under the names of the wrapper, or without its config, and from_pretrained draws new weights."""
    shows("HF-32", compiled(by_trainer=False), Loadable())


def test_hf_32_compiled_by_the_trainer(shows: Shows) -> None:
    """The Trainer takes its own wrapper off before it saves."""
    shows.not_with(compiled(by_trainer=True), Loadable())
