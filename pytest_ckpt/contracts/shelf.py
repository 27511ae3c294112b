"""What lay in the job's directory at each look, and what had gone by then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The checkpoints on disk at one look.

    Attributes:
        after: how many steps were done.
        present: in the order of their steps.
        deleted: those that were there at the look before.
        lasting: whether it stayed like this; otherwise it may have been seen in the middle of a save or a deletion.
    """

    after: int
    present: tuple[Checkpoint, ...]
    deleted: tuple[Checkpoint, ...] = ()
    lasting: bool = True


def moments(run: RunRecord, checkpoints: Sequence[Checkpoint]) -> Iterator[Moment]:
    """Yield what was there of the checkpoints at each look but the first, which is older than the run."""
    before: dict[str, Checkpoint] = {}
    for index, look in enumerate(run.looks):
        there = {entry.path for entry in look.tree.entries}
        now = {
            checkpoint.path: checkpoint
            for checkpoint in checkpoints
            if checkpoint.look <= index and not there.isdisjoint(checkpoint.files)
        }
        if index:
            yield Moment(
                after=look.step,
                present=tuple(sorted(now.values(), key=run.step_of)),
                deleted=tuple(checkpoint for path, checkpoint in before.items() if path not in now),
                lasting=(look.at_rest and not look.writing) or index == len(run.looks) - 1,
            )
        before = now


def is_continued(run: RunRecord) -> bool:
    """Say whether the run went on from a checkpoint that lay there: then the older ones are its own."""
    if run.steps and (run.steps[0].claimed or 1) > 1:
        return True
    return any(
        checkpoint.foreign and checkpoint.content is not None and 0 in checkpoint.content.steps
        for checkpoint in run.checkpoints
    )


def taken_away(run: RunRecord, except_in: Iterable[str]) -> tuple[str, ...]:
    """Return the files that were there before the run and are gone, not merely moved; none of those listed."""
    if not run.looks:
        return ()
    first, last = run.looks[0].tree, run.looks[-1].tree
    paths = {entry.path for entry in last.entries}
    contents = {entry.content for entry in last.entries if entry.kind == "file"}
    allowed = set(except_in)
    return tuple(
        entry.path
        for entry in first.entries
        if entry.kind == "file"
        and entry.path not in paths
        and entry.content not in contents
        and entry.path not in allowed
    )
