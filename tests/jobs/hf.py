"""Jobs of transformers' Trainer, alike in every release from 4.40 on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import transformers.trainer
from torch.utils.data import Dataset, IterableDataset
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_ckpt import Job

VERSION: Final = tuple(int(part) for part in transformers.__version__.split(".")[:2])
SAMPLES: Final = 20
BATCH: Final = 4
#: Optimizer steps of an epoch.
EPOCH: Final = SAMPLES // BATCH


class Config(PretrainedConfig):  # type: ignore[misc,unused-ignore]
    """The configuration of `Net`."""

    model_type = "pytest-ckpt-net"

    def __init__(self, dropout: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = dropout


class Net(PreTrainedModel):  # type: ignore[misc,unused-ignore]
    """A regression on four numbers, with dropout."""

    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.first = torch.nn.Linear(4, 8)
        self.second = torch.nn.Linear(8, 1)
        self.dropout = torch.nn.Dropout(config.dropout)
        self.post_init()  # type: ignore[no-untyped-call,unused-ignore]

    def _init_weights(self, module: torch.nn.Module) -> None:
        del module

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None, **_: Any) -> dict[str, torch.Tensor]:
        """Return the prediction, and the loss where labels are given."""
        logits = self.second(self.dropout(torch.tanh(self.first(x)))).squeeze(-1)
        if labels is None:
            return {"logits": logits}
        return {"loss": torch.nn.functional.mse_loss(logits, labels), "logits": logits}


class Samples(Dataset[dict[str, torch.Tensor]]):
    """Distinct samples; `lengths` adds token ids of different lengths, for samplers that group by them."""

    def __init__(self, *, lengths: bool = False) -> None:
        generator = torch.Generator().manual_seed(3)
        self._inputs = torch.randn(SAMPLES, 4, generator=generator)
        self._lengths = lengths

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = self._inputs[index]
        sample = {"x": x, "labels": x.sum()}
        return {**sample, "input_ids": [1] * (1 + index % 7)} if self._lengths else sample


class Stream(IterableDataset[dict[str, torch.Tensor]]):
    """The same samples as a stream that always starts at its beginning."""

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        samples = Samples()
        return (samples[index] for index in range(SAMPLES))


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack what the model takes, and leave out the token ids."""
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in ("x", "labels")}


class ScriptedTrainer(Trainer):  # type: ignore[misc,unused-ignore]
    """A Trainer whose evaluation answers from a script: loss by step, 1.0 where the script says nothing."""

    script: Mapping[int, float]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the scripted loss, with the callbacks told as by a real evaluation."""
        metrics = {"eval_loss": self.script.get(self.state.global_step, 1.0)}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self._memory_tracker.stop_and_update_metrics(metrics)
        return metrics


def arguments(job: Job, **given: Any) -> TrainingArguments:
    """Return quiet arguments for a CPU; `eval_strategy` is translated for releases that call it otherwise."""
    if "eval_strategy" in given and VERSION < (4, 41):
        given["evaluation_strategy"] = given.pop("eval_strategy")
    if given.get("train_sampling_strategy") == "group_by_length" and VERSION < (5, 0):
        given["group_by_length"] = bool(given.pop("train_sampling_strategy"))
    settings: dict[str, Any] = {
        "per_device_train_batch_size": BATCH,
        "learning_rate": 0.05,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
        **given,
    }
    return TrainingArguments(output_dir=job.dir, **settings)


def trainer(
    job: Job,
    *,
    script: Mapping[int, float] | None = None,
    data: Any = None,
    model: torch.nn.Module | None = None,
    callbacks: list[Any] | None = None,
    **given: Any,
) -> Trainer:
    """Build a Trainer on `Net` and `Samples`; with a script, evaluations answer from it."""
    training = arguments(job, **given)
    made = (ScriptedTrainer if script is not None else Trainer)(
        model=Net(Config()) if model is None else model,
        args=training,
        train_dataset=Samples() if data is None else data,
        eval_dataset=Samples(),
        data_collator=collate,
        callbacks=callbacks,
    )
    if isinstance(made, ScriptedTrainer):
        made.script = script or {}
    return made


def run(job: Job, **given: Any) -> None:
    """Build a Trainer and train it, resumed where the job is."""
    trainer(job, **given).train(resume_from_checkpoint=job.resume_from)


class SaveLast(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Saves the last step where the strategy is to save by steps, as transformers does from 4.42 on (bug HF-01)."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a save when the planned last step is done."""
        if args.save_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_save = True


def repairs() -> list[TrainerCallback]:
    """Mend what this release is known to break, for jobs that have to be correct; return callbacks for their Trainer.

    To be called in the job: it changes the process.
    """
    if VERSION < (5, 0):
        module: Any = transformers.trainer
        module.skip_first_batches = _keeping_the_epoch(module.skip_first_batches)
    return [SaveLast()] if VERSION < (4, 42) else []


def _keeping_the_epoch(skip_first_batches: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    """Have the rest of an epoch come in the order of that epoch, and not of the first one (bug HF-04)."""

    def skip(loader: Any, batches: int) -> Any:
        rest = skip_first_batches(loader, batches)
        rest.iteration = loader.iteration
        return rest

    return skip


def run_repaired(job: Job, *, callbacks: list[Any] | None = None, **given: Any) -> None:
    """Train as `run` does, with the bugs of this release mended."""
    run(job, callbacks=[*(callbacks or []), *repairs()], **given)
