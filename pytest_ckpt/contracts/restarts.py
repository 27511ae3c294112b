"""What a restart finds in the job's directory, and what it did with that: from which step it went on, and in which state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pytest_ckpt.contracts import numbering
from pytest_ckpt.contracts.base import promised
from pytest_ckpt.contracts.completeness import family, is_whole
from pytest_ckpt.contracts.models import common_models, matched
from pytest_ckpt.contracts.trajectory import StepDifference, Trajectory
from pytest_ckpt.records.experiment import Damage
from pytest_ckpt.records.state import keys_that_differ

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

#: How many files of a checkpoint are damaged, one at a time; of a sharded model the others are like those.
_AT_MOST: Final = 12

#: `newest`: it went on from the newest whole checkpoint; `older`: from one before; `scratch`: from the beginning;
#: `elsewhere`: with weights of no step that it could know; `refused`: with an error; `idle`: it ended well and trained nothing.
Way: TypeAlias = Literal["newest", "older", "scratch", "elsewhere", "refused", "idle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a job that is started again can go on from.

    Attributes:
        step: which step the newest whole checkpoint promises to hold; 0 where none is whole.
        older: the steps of whole checkpoints from before that.
    """

    step: int
    older: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene(Choice):
    """What lies in the directory as the job is started again, between two steps.

    Attributes:
        newest: the checkpoint that was saved last; `step` is its own unless it is `incomplete`.
        files: its files, and those of others that were saved with it, such as `last.ckpt`.
        incomplete: whether the newest is not whole.
        foreign: what was there before the job was first started.
        stale: how to leave the checkpoint of another run beside them that has a higher number; None where names do not count.
        renamed: how to give the newest a number with one more digit; None where names do not count, or it is alone.
        control: how to give it such a number that comes last by its letters as well.
    """

    newest: Checkpoint
    files: tuple[str, ...]
    incomplete: bool = False
    foreign: tuple[str, ...] = ()
    stale: Damage | None = None
    renamed: Damage | None = None
    control: Damage | None = None

    @classmethod
    def of(cls, run: RunRecord, advisor: Advisor, *, finished: bool = False) -> Scene | None:
        """Return what lay there after the last save that steps follow, or after the one of the last step.

        None where nothing was saved then, or nothing is whole.
        """
        own = own_of(run)
        fitting = [c for c in own if (run.step_of(c) == run.last_step) == finished]
        if not fitting:
            return None
        newest = max(fitting, key=lambda checkpoint: (run.step_of(checkpoint), checkpoint.look))
        whole = [c for c in _beside(newest, own, run) if is_whole(c, run, advisor)]
        if not whole:
            return None
        step = max(map(run.step_of, whole))
        older = [checkpoint for checkpoint in whole if run.step_of(checkpoint) < step]
        steps = tuple(sorted(set(map(run.step_of, older))))
        foreign = tuple(checkpoint.path for checkpoint in run.checkpoints if checkpoint.foreign)
        counted = bool(older) and numbering.counts(newest, own, run)
        return cls(
            newest=newest,
            files=_saved_with(newest, run)[:_AT_MOST],
            step=step,
            older=steps,
            incomplete=newest not in whole,
            foreign=foreign,
            stale=numbering.stale(newest, sorted(older, key=run.step_of)) if counted else None,
            renamed=numbering.renamed(newest) if counted else None,
            control=numbering.control(newest) if counted else None,
        )

    def damages(self) -> tuple[Damage, ...]:
        """Return each way of damaging one file of the newest checkpoint."""
        return tuple(Damage(kind=kind, path=path) for path in self.files for kind in ("missing", "cut"))


def own_of(run: RunRecord) -> list[Checkpoint]:
    """Return the checkpoints that this run wrote to be resumed from, be they whole or not."""
    families = {family(checkpoint) for checkpoint in promised(run)}
    return [checkpoint for checkpoint in run.written if family(checkpoint) in families]


def _saved_with(newest: Checkpoint, run: RunRecord) -> tuple[str, ...]:
    """Return the files of the checkpoint and of those that were saved after the same step, its own first."""
    step = run.step_of(newest)
    saved_then = [c for c in run.written if c.saved_after == newest.saved_after and run.step_of(c) <= step]
    others = [checkpoint for checkpoint in saved_then if checkpoint is not newest]
    return (*newest.files, *(path for checkpoint in others for path in checkpoint.files if path not in newest.files))


def _beside(newest: Checkpoint, own: Sequence[Checkpoint], run: RunRecord) -> Iterator[Checkpoint]:
    """Yield the checkpoints that were there beside the newest, under names that nothing has been written to since."""
    tree = run.looks[newest.look].tree
    step = run.step_of(newest)
    so_far = [c for c in own if c.look <= newest.look and c.path in tree and run.step_of(c) <= step]
    for checkpoint in so_far:
        if checkpoint.version == max(other.version for other in so_far if other.path == checkpoint.path):
            yield checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """What a run that was started again did.

    Attributes:
        way: where it went on from.
        step: the step it went on from, where that is known.
        difference: in what its first step differs from the one of a restart without damage; None if in nothing.
        message: the first line of the error with which it refused.
    """

    way: Way
    step: int | None = None
    difference: StepDifference | None = None
    message: str = ""

    @classmethod
    def of(cls, run: RunRecord, choice: Choice, baseline: RunRecord, intact: RunRecord | None = None) -> Restarted:
        """Tell what a run did with what was there; `intact` is the same without damage."""
        if not run.outcome.ok:
            lines = run.outcome.message.splitlines() or [run.outcome.status]
            return cls(way="refused", message=lines[0])
        if not run.steps:
            return cls(way="idle")
        found = _steps_before(run, baseline)
        if choice.step in found:
            difference = None if intact is None else _difference(run, intact, baseline, choice)
            return cls(way="newest", step=choice.step, difference=difference)
        earlier = [step for step in found if step in choice.older]
        if earlier:
            return cls(way="older", step=earlier[-1])
        if 0 in found and not _counts_on(run, choice, baseline):
            return cls(way="scratch", step=0)
        return cls(way="elsewhere", step=found[-1] if found else None)


def went_on_from(run: RunRecord, baseline: RunRecord, steps: Iterable[int]) -> list[int]:
    """Return those of some steps whose weights a run that was started again began with."""
    found = _steps_before(run, baseline) if run.steps else ()
    return [step for step in steps if step in found]


def _counts_on(run: RunRecord, choice: Choice, baseline: RunRecord) -> bool:
    """Say whether a framework goes on counting after the newest: it took that checkpoint, whatever the weights are."""
    follows = baseline.steps[choice.step].claimed if choice.step < len(baseline.steps) else None
    return follows is not None and run.steps[0].claimed == follows


def _steps_before(run: RunRecord, baseline: RunRecord) -> tuple[int, ...]:
    """Return after which steps of the baseline the weights were those with which a run's first step began."""
    pairs = [matched(step, run.steps[0]) for step in baseline.steps]
    states = [(mine.index - 1, mine.state.get("weights", {}), began) for mine, began in pairs]
    states += [
        (mine.index, {**mine.state.get("weights", {}), **mine.state.get("update", {})}, began)
        for mine, began in pairs[-1:]
    ]
    return tuple(
        number
        for number, weights, began in states
        if not keys_that_differ(*common_models(weights, began.state.get("weights", {})))
    )


def _difference(run: RunRecord, intact: RunRecord, baseline: RunRecord, choice: Choice) -> StepDifference | None:
    """Return in what the first step differs from that of the restart without damage."""
    trajectory = replace(Trajectory.of(baseline), run=intact)
    found = trajectory.first_difference(run.steps[:1], 0, "exact")
    return None if found is None else replace(found, step=choice.step + 1)
