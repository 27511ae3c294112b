"""What of a run's checkpoints is whole in a state that a crash left, and which of them a restart may go on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.completeness import is_whole
from pytest_ckpt.contracts.restarts import Choice, own_of

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.crash import CrashState, Trace
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Entry, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashScene(Choice):
    """A state that a crash left.

    Attributes:
        number: of the state (`Trace.states`).
        newest: the newest checkpoint that is whole; None if none is.
        certain: the step of the newest checkpoint that is whole and whose save had ended before: a restart that goes on from
            an older one loses what the job took for saved. Of what is being saved it may take either.
        had: the step of the newest that must not be lost, as its save had ended before, whether it is still there or not.
        lasts: whether it is what a save left in the end; a later crash finds it, too.
        by_power: whether it takes a power failure to leave it.
        ending: whether a save of the last step had begun, after which a restart may find nothing left to train.
    """

    number: int
    newest: Checkpoint | None = None
    certain: int = 0
    had: int = 0
    lasts: bool = False
    by_power: bool = False
    ending: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether it is what the save of the newest left, or what there was before the first."""
        return self.number == 0 or (self.lasts and self.certain == self.step and not self.by_power)

    @property
    def is_gap(self) -> bool:
        """Whether something had been saved before, and now nothing is whole."""
        return self.newest is None and self.had > 0


def crash_scenes(run: RunRecord, advisor: Advisor) -> tuple[CrashScene, ...]:
    """Return what each state of a traced run holds."""
    if run.trace is None:
        return ()
    own = own_of(run)
    resumable = [checkpoint for checkpoint in run.written if checkpoint.kind == "full" or checkpoint in own]
    shelf = [Saved.of(checkpoint, run) for checkpoint in resumable if is_whole(checkpoint, run, advisor)]
    trace, last_step = run.trace, run.last_step
    return tuple(_scene(number, state, shelf, trace, last_step) for number, state in enumerate(trace.states))


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint that was whole at some time.

    Attributes:
        entries: what belongs to it.
        ended_ns: when its save was seen to have ended, with all else that is saved after the same step.
    """

    checkpoint: Checkpoint
    step: int
    entries: tuple[Entry, ...]
    ended_ns: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, run: RunRecord) -> Saved:
        """Return what a run had saved."""
        look = run.looks[checkpoint.look if checkpoint.settled is None else checkpoint.settled]
        entries = tuple(entry for path in (checkpoint.path, *checkpoint.others) for entry in look.tree.under(path))
        ended_ns = max(other.time_ns for other in run.looks if other.step == look.step)
        return cls(checkpoint=checkpoint, step=run.step_of(checkpoint), entries=entries, ended_ns=ended_ns)

    def has_begun_in(self, tree: Tree) -> bool:
        """Say whether a file of it lies in a tree as it was saved."""
        there = {entry.path: entry for entry in tree.entries if entry.kind == "file"}
        return any(entry.path in there and entry.same_as(there[entry.path]) for entry in self.entries)

    def is_in(self, tree: Tree) -> bool:
        """Say whether all of it lies in a tree as it was saved."""
        there = {entry.path: entry for entry in tree.entries}
        return all(entry.path in there and entry.same_as(there[entry.path]) for entry in self.entries)


def _scene(number: int, state: CrashState, shelf: list[Saved], trace: Trace, last_step: int) -> CrashScene:
    times = [operation.time_ns for operation in trace.operations]
    begun_ns = times[state.operations - 1] if state.operations else 0
    # A write that is cut was still going on; else the state lasts until the next operation begins.
    lasted = state.until if state.cut is None or state.until > state.operations else state.operations - 1
    ended = [saved for saved in shelf if lasted == len(times) or saved.ended_ns < times[lasted]]
    # What a power failure takes of the save that has just ended is lost with it; an earlier one must still be there.
    kept = [saved for saved in ended if not state.lost or saved.ended_ns < times[state.operations - 1]]
    whole = sorted((saved for saved in shelf if saved.is_in(state.tree)), key=lambda saved: saved.step)
    newest = whole[-1] if whole else None
    return CrashScene(
        number=number,
        newest=None if newest is None else newest.checkpoint,
        step=0 if newest is None else newest.step,
        older=tuple(sorted({saved.step for saved in whole[:-1] if newest is not None and saved.step < newest.step})),
        certain=max((saved.step for saved in whole if saved in ended), default=0),
        had=max((saved.step for saved in kept), default=0),
        lasts=any(saved.ended_ns >= begun_ns for saved in ended),
        by_power=bool(state.lost),
        ending=any(saved.step == last_step and saved.has_begun_in(state.tree) for saved in shelf),
    )
