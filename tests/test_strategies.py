"""Schedules are drawn as frameworks take them, and shrink to the smallest that breaks a test."""

from __future__ import annotations

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.strategies import Schedule, for_jobs, schedules


def smallest(strategy: st.SearchStrategy[Schedule], **wanted: object) -> Schedule:
    """Return the smallest schedule that has some values."""
    return find(
        strategy,
        lambda schedule: all(getattr(schedule, name) == value for name, value in wanted.items()),
        settings=settings(database=None),
    )


def test_the_smallest_schedule_is_small_in_all_its_parts() -> None:
    """Whatever does not matter is 1, or nothing."""
    assert Schedule(dataset_len=1) == smallest(schedules())
    assert Schedule(dataset_len=1, save_strategy="epoch", save_total_limit=2) == smallest(
        schedules(), save_strategy="epoch", save_total_limit=2
    )


def test_a_schedule_whose_interval_does_not_divide_its_length_shrinks_to_one_step() -> None:
    """One step, and a save that would come with the second."""
    found = find(
        schedules(save_strategy="steps"),
        lambda schedule: schedule.max_steps is not None and schedule.max_steps % schedule.save_steps != 0,
        settings=settings(database=None),
    )
    assert Schedule(dataset_len=1, max_steps=1, save_steps=2) == found


@settings(deadline=None)
@given(schedules(epochs=2.5, dataset_len=st.integers(7, 9), save_total_limit=st.none(), drop_last=True))
def test_values_and_strategies_can_be_given(schedule: Schedule) -> None:
    """For each part of a schedule."""
    assert (2.5, None, True) == (schedule.epochs, schedule.save_total_limit, schedule.drop_last)
    assert 7 <= schedule.dataset_len <= 9


def test_arguments_for_transformers() -> None:
    """By the names that TrainingArguments have."""
    assert {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,
        "dataloader_drop_last": False,
        "save_strategy": "steps",
        "save_steps": 0.25,
        "save_total_limit": None,
    } == Schedule(dataset_len=9, epochs=2, batch_size=4, accumulation=3, save_steps=0.25).training_arguments()
    ends = Schedule(dataset_len=9, max_steps=7, save_strategy="epoch", save_total_limit=2).training_arguments()
    assert (7, "epoch", 2) == (ends["max_steps"], ends["save_strategy"], ends["save_total_limit"])
    assert {"num_train_epochs", "save_steps"}.isdisjoint(ends)


@pytest.mark.parametrize(
    ("schedule", "trainer", "checkpoint"),
    [
        (
            Schedule(dataset_len=9, epochs=2, accumulation=3, save_steps=5),
            {"max_epochs": 2, "accumulate_grad_batches": 3},
            {"every_n_train_steps": 5, "save_top_k": -1},
        ),
        (
            Schedule(dataset_len=9, max_steps=7, save_strategy="epoch", save_total_limit=2),
            {"max_epochs": -1, "max_steps": 7, "accumulate_grad_batches": 1},
            {"every_n_epochs": 1, "save_top_k": 2, "monitor": "step", "mode": "max"},
        ),
        (
            Schedule(dataset_len=9, save_strategy="no"),
            {"max_epochs": 1, "accumulate_grad_batches": 1},
            {"save_top_k": 0},
        ),
    ],
)
def test_arguments_for_lightning(schedule: Schedule, trainer: dict[str, object], checkpoint: dict[str, object]) -> None:
    """Of its Trainer, and of its ModelCheckpoint; the newest checkpoints are those of the highest steps."""
    assert trainer == schedule.trainer_arguments()
    assert checkpoint == schedule.checkpoint_arguments()


def test_what_lightning_can_not_be_told() -> None:
    """Parts of an epoch and of a run are of transformers only."""
    with pytest.raises(InvalidArgument, match=r"trains whole epochs, and the schedule has 1\.5"):
        Schedule(dataset_len=9, epochs=1.5).trainer_arguments()
    with pytest.raises(InvalidArgument, match=r"save_steps is 0\.25; draw whole numbers"):
        Schedule(dataset_len=9, save_steps=0.25).checkpoint_arguments()


def test_jobs_may_take_their_time() -> None:
    """Each example starts processes."""
    assert for_jobs.deadline is None
