"""What the callbacks of a Lightning trainer promise to save and to keep, by the settings in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_ckpt.records.run import FrameworkFacts, RunRecord


#: The setting that says whether the job called `trainer.save_checkpoint` itself.
BY_JOB: Final = "saved by the job"


def expected_count(facts: FrameworkFacts, run: RunRecord) -> int | None:
    """Return how many numbered checkpoints remain of one ModelCheckpoint that saves every so many steps; None of others."""
    callbacks = list(_callbacks(facts.settings))
    if len(callbacks) != 1 or facts.settings.get(BY_JOB) == "True" or not (every := _interval(callbacks[0])):
        return None
    saves = _last(run) // every
    top = int(callbacks[0].get("save_top_k", "1"))
    if top == -1:
        return saves
    return None if _is_set(callbacks[0], "monitor") else min(top, saves)


def promised_steps(facts: FrameworkFacts, run: RunRecord) -> frozenset[int] | None:
    """Return the steps that callbacks with an interval of steps save; None where an epoch, a metric or the time decides."""
    promised: set[int] = set()
    callbacks = list(_callbacks(facts.settings))
    for callback in callbacks:
        every, top = _interval(callback), callback.get("save_top_k", "1")
        if not every or (_is_set(callback, "monitor") and top != "-1"):
            return None
        numbers = range(every, _last(run) + 1, every) if top != "0" else ()
        promised |= {index for number in numbers if (index := run.index_of(number, by=run.last_step)) is not None}
        if _is_set(callback, "save_last") and run.last_step in run.saved_steps:
            promised.add(run.last_step)  # last.ckpt, in the releases that write it at the end
    if facts.settings.get(BY_JOB) == "True":  # what the job saves by itself is meant to be saved, too
        promised.update(run.saved_steps)
    return frozenset(promised) if callbacks else None


def _callbacks(settings: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the settings of each ModelCheckpoint."""
    number = 1
    while own := {
        key.partition(".")[2]: value for key, value in settings.items() if key.startswith(label(number) + ".")
    }:
        yield own
        number += 1


def label(number: int) -> str:
    """Return what the settings of a trainer's n-th ModelCheckpoint begin with, counted from 1."""
    return "ModelCheckpoint" if number == 1 else f"ModelCheckpoint {number}"


def _interval(callback: Mapping[str, str]) -> int:
    """Return after how many steps it saves, 0 if something else decides."""
    every = callback.get("every_n_train_steps", "")
    return int(every) if every.isdigit() else 0


def _last(run: RunRecord) -> int:
    """Return Lightning's own number of the last step."""
    return (run.steps[-1].claimed or 0) if run.steps else 0


def _is_set(callback: Mapping[str, str], name: str) -> bool:
    return callback.get(name, "None") not in {"None", "False"}
