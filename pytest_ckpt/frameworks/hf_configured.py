"""A Trainer with the schedule of a configuration file, to be rehearsed: its model and its samples are never used."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pytest_ckpt.configs.schedule import Schedule

#: Arguments that other releases of transformers know by another name.
_OTHER_NAMES: Final = {"eval_strategy": "evaluation_strategy", "evaluation_strategy": "eval_strategy"}


def configured(schedule: Schedule, output_dir: str) -> Any:
    """Return a Trainer that trains as long, evaluates as often and saves as the schedule says."""
    import torch
    from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

    class Samples(torch.utils.data.Dataset[Any]):
        def __init__(self, length: int) -> None:
            self._length = length

        def __len__(self) -> int:
            return self._length

        def __getitem__(self, index: int) -> Any:
            return {"index": index}

    class SaveFirstStep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args
            control.should_save |= state.global_step == 1

    callbacks: list[Any] = [SaveFirstStep()] if schedule.first_step else []
    callbacks += [] if schedule.patience is None else [EarlyStoppingCallback(schedule.patience)]
    arguments = _known(schedule, {field.name for field in dataclasses.fields(TrainingArguments) if field.init})
    return Trainer(
        model=torch.nn.Linear(1, 1),
        args=TrainingArguments(output_dir=output_dir, use_cpu=True, report_to=[], **arguments),
        train_dataset=Samples(schedule.train_len),
        eval_dataset=Samples(schedule.eval_len) if schedule.eval_len else None,
        callbacks=callbacks,
    )


def _known(schedule: Schedule, names: set[str]) -> dict[str, Any]:
    """Return the arguments under the names that the installed release has; YAML reads the strategy `no` as False."""
    found = {name if name in names else _OTHER_NAMES.get(name, name): v for name, v in schedule.arguments.items()}
    said = {name: "no" if value is False and name.endswith("_strategy") else value for name, value in found.items()}
    return {name: value for name, value in said.items() if name in names and value is not None}
