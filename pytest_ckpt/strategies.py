"""Strategies of hypothesis for the schedules of training runs, which shrink to the smallest that breaks a test.

The only module that imports hypothesis: `pip install pytest-ckpt[hypothesis]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pytest_ckpt.errors import InvalidArgument

__all__ = ["SaveStrategy", "Schedule", "for_jobs", "schedules"]

#: When is saved: after every so many steps, after each epoch, or never by itself.
SaveStrategy: TypeAlias = Literal["steps", "epoch", "no"]

#: Settings for tests that run a job for each example: processes take their time, and a fixture such as `ckpt_run` may be used
#: for all of them. Use it as a decorator; `settings(for_jobs, max_examples=200)` changes some of it.
for_jobs: Final = settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long a run trains, and when it saves.

    Attributes:
        dataset_len: how many samples there are.
        batch_size: samples of a batch.
        accumulation: batches of an optimizer step.
        epochs: how often the samples are gone through, where `max_steps` does not say when to end.
        max_steps: optimizer steps of the run.
        drop_last: whether a last batch that is not full is left out.
        save_strategy: when is saved: `steps`, `epoch` or `no`.
        save_steps: steps between two saves; below 1 a part of the run, which only transformers knows.
        save_total_limit: how many checkpoints are kept; None for all.
    """

    dataset_len: int
    batch_size: int = 1
    accumulation: int = 1
    epochs: float = 1
    max_steps: int | None = None
    drop_last: bool = False
    save_strategy: SaveStrategy = "steps"
    save_steps: float = 1
    save_total_limit: int | None = None

    def training_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that transformers' TrainingArguments take for this schedule."""
        length = {"num_train_epochs": self.epochs} if self.max_steps is None else {"max_steps": self.max_steps}
        saving = {"save_steps": self.save_steps} if self.save_strategy == "steps" else {}
        return {
            **length,
            "per_device_train_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulation,
            "dataloader_drop_last": self.drop_last,
            "save_strategy": self.save_strategy,
            **saving,
            "save_total_limit": self.save_total_limit,
        }

    def loader_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that torch's DataLoader takes for this schedule."""
        return {"batch_size": self.batch_size, "drop_last": self.drop_last}

    def trainer_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that Lightning's Trainer takes for this schedule.

        Raises:
            InvalidArgument: it ends within an epoch, which Lightning can't be told.
        """
        if self.max_steps is None and self.epochs != int(self.epochs):
            message = f"Lightning trains whole epochs, and the schedule has {self.epochs:g}; draw schedules(epochs=2)"
            raise InvalidArgument(message)
        length = {"max_epochs": int(self.epochs)}
        if self.max_steps is not None:
            length = {"max_epochs": -1, "max_steps": self.max_steps}
        return {**length, "accumulate_grad_batches": self.accumulation}

    def checkpoint_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that Lightning's ModelCheckpoint takes for this schedule.

        Raises:
            InvalidArgument: it saves after a part of the run, which Lightning can't be told.
        """
        if self.save_strategy == "no":
            return {"save_top_k": 0}
        keep: dict[str, Any] = {"save_top_k": -1}
        if self.save_total_limit is not None:  # the newest ones are those with the highest step
            keep = {"save_top_k": self.save_total_limit, "monitor": "step", "mode": "max"}
        if self.save_strategy == "epoch":
            return {"every_n_epochs": 1, **keep}
        if self.save_steps != int(self.save_steps):
            message = f"Lightning counts steps between saves, and save_steps is {self.save_steps:g}; draw whole numbers"
            raise InvalidArgument(message)
        return {"every_n_train_steps": int(self.save_steps), **keep}


def schedules(  # noqa: PLR0913 - the parts of a schedule
    *,
    dataset_len: int | st.SearchStrategy[int] | None = None,
    batch_size: int | st.SearchStrategy[int] | None = None,
    accumulation: int | st.SearchStrategy[int] | None = None,
    epochs: float | st.SearchStrategy[float] | None = None,
    max_steps: int | st.SearchStrategy[int | None] | None = None,
    drop_last: bool | st.SearchStrategy[bool] | None = None,
    save_strategy: SaveStrategy | st.SearchStrategy[SaveStrategy] | None = None,
    save_steps: float | st.SearchStrategy[float] | None = None,
    save_total_limit: int | st.SearchStrategy[int | None] | None = None,
) -> st.SearchStrategy[Schedule]:
    """Return a strategy for schedules, all of which transformers and Lightning accept unless other values are given.

    Each argument is a value or a strategy for it (`st.none()` for None itself); without one, small values are drawn. What
    breaks a test is shrunk to the smallest values that break it, in the order of the arguments.
    """
    given = dict(locals())
    parts = {name: _part(given[name], default) for name, default in _DEFAULTS.items()}
    return st.builds(Schedule, **parts)


def _part(value: object, default: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if value is None:
        return default
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


_DEFAULTS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "dataset_len": st.integers(1, 40),
    "batch_size": st.integers(1, 8),
    "accumulation": st.integers(1, 4),
    "epochs": st.integers(1, 4),
    "max_steps": st.none() | st.integers(1, 40),
    "drop_last": st.just(value=False),  # else there may be no batch at all
    "save_strategy": st.sampled_from(("steps", "epoch", "no")),
    "save_steps": st.integers(1, 12),
    "save_total_limit": st.none() | st.integers(1, 3),
}
