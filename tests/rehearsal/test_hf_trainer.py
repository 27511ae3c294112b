"""The whole schedule of a Trainer in seconds: what is real in it, what is not, and what that can't stand for."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from jobs import hf
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.contracts.best_model import Best
from pytest_ckpt.contracts.completeness import Complete
from pytest_ckpt.contracts.logging_saves import Logged
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from conftest import Judge
    from pytest_ckpt import Job

saves_the_last = pytest.mark.skipif(hf.VERSION < (4, 42), reason="this release does not save the last step (bug HF-01)")


class Unread(Dataset[Any]):
    """As long as asked for, and not to be read."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        message = f"sample {index} was read"
        raise AssertionError(message)


def rehearse(
    job: Job, *, kind: type[Trainer] = Trainer, samples: int = 40, asked: Mapping[str, Any] | None = None, **given: Any
) -> Trainer:
    """Rehearse a Trainer on a data set that must not be read."""
    callbacks = given.pop("callbacks", None)
    trainer = kind(
        model=hf.Net(hf.Config()),
        args=hf.arguments(job, **given),
        train_dataset=Unread(samples),
        eval_dataset=Unread(8),
        callbacks=callbacks,
    )
    job.rehearse(trainer, **(asked or {}))
    return trainer


# -- what is real ------------------------------------------------------------------------------------------------------


@saves_the_last
def test_a_schedule_that_fits(judge: Judge) -> None:
    """Everything that the schedule decides is decided, and the rest is not spoken of."""
    contracts = FinalStep(), Count(None), Steps(), Aligned(), Retention(), Resumable(), Complete()
    verdicts = judge(partial(rehearse, num_train_epochs=3, save_steps=5, save_total_limit=2), *contracts)
    found = {name: verdict.status for name, verdict in verdicts.items()}
    assert dict.fromkeys(("final_step", "count", "steps", "aligned", "retention"), "held") == {
        name: status for name, status in found.items() if status != "not_applicable"
    }, verdicts
    assert judge.baseline.saved_steps == (5, 10, 15, 20, 25, 30)
    assert "checkpoints of a stand-in" in verdicts["resumable"].sentence
    assert len(judge.lab.runs) == 1, "a rehearsal is not resumed"


@saves_the_last
@pytest.mark.parametrize("saves", [False, True])
def test_a_log_that_tells_of_a_save(judge: Judge, *, saves: bool) -> None:
    """Of a rehearsal, too, it is known whether what the job says is done."""

    def train(job: Job) -> None:
        trainer = rehearse(job, max_steps=50, save_steps=20)
        sys.stdout.write(f"Training completed! Saving pre-trained model to {job.dir}/model\n")
        if saves:
            trainer.save_model(f"{job.dir}/model")

    verdict = judge(train, Logged())["logged"]
    if saves:
        assert "all 4 announced saves were made, and what is kept is whole" == verdict.sentence
    else:
        assert "violated" == verdict.status, verdict
        assert 'Saving pre-trained model to model", and writes no model there' in verdict.findings[0].title


def test_the_verdict_lists_what_was_replaced(judge: Judge) -> None:
    """A reader knows what was real."""
    verdict = judge(partial(rehearse, max_steps=6, save_steps=3, asked={"world_size": 2}), FinalStep())["final_step"]
    assert verdict.notes == (
        "rehearsed with stand-ins for the model, the optimizer, the samples, evaluation; all else was the real loop",
        "the schedule is that of 2 processes, of which one was run",
    )


@pytest.mark.parametrize(("world_size", "steps"), [(1, 20), (2, 10), (3, 8), (8, 4)])
def test_the_steps_of_several_processes(judge: Judge, world_size: int, steps: int) -> None:
    """40 samples in batches of 4, twice: as many steps as each of the processes would make."""
    judge(partial(rehearse, num_train_epochs=2, save_steps=100, asked={"world_size": world_size}), FinalStep())
    assert judge.baseline.last_step == steps
    assert judge.baseline.frameworks[0].planned_steps == steps


def test_checkpoints_are_small(judge: Judge) -> None:
    """A thousand of them fit into any disk, whatever the model."""

    def train(job: Job) -> None:
        rehearse(job, max_steps=4, save_steps=2)
        size = sum(path.stat().st_size for path in job.path.glob("checkpoint-2/*"))
        assert size < 64 * 1024, size

    assert judge(train, Count(None))["count"].status in {"held", "violated"}


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stream(judge: Judge, world_size: int) -> None:
    """A data set without a length is read to know how long it is, and not collated."""

    def train(job: Job) -> None:
        settings = hf.arguments(job, max_steps=12, save_steps=4)
        job.rehearse(Trainer(hf.Net(hf.Config()), settings, train_dataset=hf.Stream()), world_size=world_size)

    verdicts = judge(train, Steps(), FinalStep())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, verdicts
    assert (4, 8, 12) == judge.baseline.saved_steps


class StopAt(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Ends training early, as a budget of time would."""

    def on_step_end(self, *given: Any, **_: Any) -> None:
        """Stop after step 7."""
        given[2].should_training_stop = given[1].global_step == 7


def test_callbacks_are_the_real_ones(judge: Judge) -> None:
    """A run that a callback ends between two saves loses what follows the last one, as in the real run."""
    verdict = judge(partial(rehearse, max_steps=20, save_steps=5, callbacks=[StopAt()]), FinalStep())["final_step"]
    assert ("violated", 7) == (verdict.status, verdict.findings[0].step)
    assert "training stopped at step 7 of 20" in verdict.findings[0].cause


# -- evaluation --------------------------------------------------------------------------------------------------------

_EVALUATED: dict[str, Any] = {
    "max_steps": 10,
    "save_steps": 2,
    "eval_steps": 2,
    "eval_strategy": "steps",
    "load_best_model_at_end": True,
    "save_total_limit": 2,
}


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        (None, "checkpoint-2"),
        ([0.5, 0.4, 0.3, 0.6, 0.7], "checkpoint-6"),
        (lambda step: 1 / step, "checkpoint-10"),
        ({"eval_loss": [0.5, 0.1, 0.9]}, "checkpoint-4"),
        pytest.param(
            float("nan"),
            None,
            marks=pytest.mark.skipif(
                hf.VERSION < (4, 47), reason="this release takes the first value for the best, NaN or not"
            ),
        ),
    ],
)
def test_the_best_of_scripted_evaluations(judge: Judge, metric: Any, best: str | None) -> None:
    """Which checkpoint is the best follows from what evaluations answer, and it is the one that is loaded."""

    def train(job: Job) -> None:
        found = rehearse(job, asked={"metric": metric}, **_EVALUATED).state.best_model_checkpoint
        assert best == (found and found.rpartition("/")[2])

    verdict = judge(train, Best())["best"]
    assert ("held" if best else "violated") == verdict.status, verdict


def test_early_stopping(judge: Judge) -> None:
    """A metric that no longer improves ends the run (bug HF-14): the last step is lost where it is not one that is saved."""
    job = partial(
        rehearse,
        asked={"metric": [3.0, 2.0, 4.0, 5.0, 6.0, 7.0]},
        callbacks=[EarlyStoppingCallback(2)],
        **{**_EVALUATED, "max_steps": 40, "save_steps": 6, "eval_steps": 3, "save_total_limit": None},
    )
    verdict = judge(job, FinalStep())["final_step"]
    assert judge.baseline.last_step < 40
    assert verdict.status == ("held" if judge.baseline.last_step % 6 == 0 else "violated"), verdict


def test_several_data_sets_are_evaluated(judge: Judge) -> None:
    """The metric may be that of one of them."""

    def train(job: Job) -> None:
        trainer = Trainer(
            model=hf.Net(hf.Config()),
            args=hf.arguments(
                job, **{**_EVALUATED, "metric_for_best_model": "eval_code_loss", "greater_is_better": False}
            ),
            train_dataset=Unread(40),
            eval_dataset={"code": Unread(4), "text": Unread(4)},
        )
        job.rehearse(trainer, metric={"eval_code_loss": [3, 2, 1, 2, 3]})
        assert str(trainer.state.best_model_checkpoint).endswith("checkpoint-6")
        assert {"eval_code_loss", "eval_text_loss"} <= {name for entry in trainer.state.log_history for name in entry}

    assert judge(train, Best())["best"].status == "held"


# -- what a rehearsal can't stand for ----------------------------------------------------------------------------------


class ReadsWeights(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Stops training where a weight grows."""

    def on_step_end(self, *given: Any, model: Any, **_: Any) -> None:  # type: ignore[override]
        """Look at the weights."""
        given[2].should_training_stop = any(bool(p.abs().max() > 100) for p in model.parameters())


class ReadsLayer(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Looks at one layer."""

    def on_train_end(self, *given: Any, model: Any, **_: Any) -> None:  # type: ignore[override]
        """Look at the first layer."""
        assert given
        assert model.first.weight.shape


class OwnStep(Trainer):  # type: ignore[misc,unused-ignore]
    """Trains with a step of its own, which looks into the batch."""

    def training_step(self, model: Any, inputs: Any, *args: Any) -> Any:
        """Drop a column, as some do."""
        inputs["labels"] = inputs["labels"] * 2
        return super().training_step(model, inputs, *args)


class LossThatStops(Trainer):  # type: ignore[misc,unused-ignore]
    """Ends training in the computation of the loss."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Stop where the loss is small."""
        loss: Any = super().compute_loss(*args, **kwargs)
        self.control.should_training_stop = bool(loss < 0.1)
        return loss


@pytest.mark.parametrize(
    ("given", "who", "what"),
    [
        ({"callbacks": [ReadsWeights()]}, "on_step_end", "reads the parameters of the model"),
        ({"callbacks": [ReadsLayer()]}, "on_train_end", "reads first of the model"),
        ({"kind": OwnStep}, "training_step", "reads 'labels' of a batch"),
        ({"kind": LossThatStops}, "LossThatStops.compute_loss", "uses control, and is not called"),
    ],
    ids=[
        "a callback that reads weights",
        "a callback that reads a layer",
        "a step that reads the batch",
        "a loss that stops",
    ],
)
def test_what_meets_a_stand_in_is_named(judge: Judge, given: dict[str, Any], who: str, what: str) -> None:
    """Where something needs the real model or data nothing is decided, and who needs it is told."""
    verdict = judge(partial(rehearse, max_steps=6, save_steps=3, **given), FinalStep())["final_step"]
    assert verdict.status == "inconclusive", verdict
    assert "the rehearsal met code that needs the real model or data: " in verdict.sentence
    assert who in verdict.sentence
    assert what in verdict.sentence
    assert "ckpt_job.train(trainer, max_steps=...)" in verdict.findings[0].fix


class ReadsMetric(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Looks at a metric of its own."""

    def on_evaluate(self, *given: Any, metrics: Any, **_: Any) -> None:  # type: ignore[override]
        """Stop where it is high."""
        given[2].should_training_stop = metrics["eval_f1"] > 0.9


@pytest.mark.parametrize(("metric", "status"), [(None, "inconclusive"), ({"eval_f1": 0.5}, "held")])
def test_a_metric_that_is_not_given(judge: Judge, metric: Any, status: str) -> None:
    """Code that fails because of a stand-in is named; with the metric it needs there is a verdict."""
    job = partial(rehearse, callbacks=[ReadsMetric()], asked={"metric": metric}, **_EVALUATED)
    verdict = judge(job, FinalStep())["final_step"]
    assert status == verdict.status, verdict
    assert (status == "held") != ("fails with KeyError: 'eval_f1'" in verdict.sentence)


def test_an_error_of_the_framework(judge: Judge) -> None:
    """What the Trainer itself refuses is an error as ever."""

    def train(job: Job) -> None:
        settings = hf.arguments(job, num_train_epochs=1)
        with pytest.raises(ValueError, match="max_steps"):
            job.rehearse(Trainer(hf.Net(hf.Config()), settings, train_dataset=hf.Stream()))

    judge(train)


def test_what_follows_the_training(judge: Judge) -> None:
    """A job goes on with what `train` returns, evaluates once more and saves the model."""

    def train(job: Job) -> None:
        trainer = Trainer(
            model=hf.Net(hf.Config()),
            args=hf.arguments(job, max_steps=6, save_steps=3),
            train_dataset=Unread(40),
            eval_dataset=Unread(8),
        )
        result: Any = job.rehearse(trainer, metric=0.5)
        trainer.save_metrics("train", result.metrics)
        assert 0.5 == trainer.evaluate()["eval_loss"]
        trainer.save_model(str(job.path / "final"))
        trainer.save_state()

    assert judge(train, FinalStep())["final_step"].status == "held"


def test_a_rehearsal_that_can_not_go_on(judge: Judge) -> None:
    """What the job would do with the result of training is not its fault."""

    def train(job: Job) -> None:
        settings = hf.arguments(job, max_steps=6, save_steps=3)
        result: Any = job.rehearse(OwnStep(hf.Net(hf.Config()), settings, train_dataset=Unread(40)))
        assert result.metrics

    assert judge(train, FinalStep())["final_step"].status == "inconclusive"


class OwnLoss(Trainer):  # type: ignore[misc,unused-ignore]
    """Computes its loss by itself and wraps what surrounds it."""

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        """Compute something that needs real outputs."""
        return model(**inputs)["logits"].square().mean()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Add nothing to the framework's own step."""
        return super().training_step(*args, **kwargs)

    def save_model(self, output_dir: Any = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002 - its signature
        """Save the weights in half precision as well."""
        super().save_model(output_dir, _internal_call)
        model: Any = self.model
        half = {name: value.half() for name, value in model.state_dict().items()}
        torch.save(half, f"{output_dir or self.args.output_dir}/half.pt")


def test_code_that_computes_and_saves_is_none_of_it(judge: Judge) -> None:
    """A loss of one's own is not called, a step that passes on is, and saving may read everything."""
    verdict = judge(partial(rehearse, max_steps=6, save_steps=3, kind=OwnLoss), FinalStep())["final_step"]
    assert verdict.status == "held", verdict
    assert "compute_loss of OwnLoss" in verdict.notes[0]


class Watches(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Reads what is no weight."""

    def on_step_end(self, *given: Any, model: Any, **_: Any) -> None:  # type: ignore[override]
        """Read the configuration of the model."""
        assert given
        assert model.config.dropout == 0.1


def test_a_callback_that_reads_the_configuration(judge: Judge) -> None:
    """That is the real one."""
    assert (
        judge(partial(rehearse, max_steps=6, save_steps=3, callbacks=[Watches()]), FinalStep())["final_step"].status
        == "held"
    )


def test_a_model_that_the_job_saves_by_itself(judge: Judge) -> None:
    """The job's own reference is not the stand-in: what it saves can't be judged, and is not called missing."""

    def train(job: Job) -> None:
        trainer = rehearse(job, max_steps=6, save_strategy="no")
        del trainer
        hf.Net(hf.Config()).save_pretrained(job.path / "final")

    verdict = judge(train, FinalStep(weights_only=True))["final_step"]
    assert verdict.status == "inconclusive"
    assert "the job saved final/" in verdict.sentence


def test_a_model_that_the_trainer_saves(judge: Judge) -> None:
    """Its own save_model has the stand-in."""

    def train(job: Job) -> None:
        rehearse(job, max_steps=6, save_strategy="no").save_model(str(job.path / "final"))

    assert judge(train, FinalStep(weights_only=True))["final_step"].status == "held"


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda job: job.rehearse(object()), "builtins.object, whose schedule no known framework rehearses"),
        (lambda job: rehearse(job, max_steps=2, asked={"world_size": 0}), "world_size must be the number of processes"),
        (
            lambda job: rehearse(job, max_steps=2, asked={"world_size": True}),
            "world_size must be the number of processes",
        ),
        (lambda job: rehearse(job, max_steps=2, asked={"metric": []}), "metric must say what evaluations answer"),
        (lambda job: rehearse(job, max_steps=2, asked={"metric": {"eval_loss": "low"}}), "metric must say"),
        (lambda job: rehearse(job, max_steps=2, asked={"data": 1}), "takes no further arguments; got"),
    ],
    ids=["no trainer", "no process", "a flag", "no metric", "a word", "an argument too many"],
)
def test_bad_input(judge: Judge, call: Callable[[Job], object], says: str) -> None:
    """The message names what was wrong."""

    def train(job: Job) -> None:
        with pytest.raises(InvalidArgument) as caught:
            call(job)
        (job.path / "said.txt").write_text(str(caught.value), encoding="utf-8")

    judge(train)
    judge.lab.leave()
    assert says in (judge.lab.job.path / "said.txt").read_text(encoding="utf-8")
