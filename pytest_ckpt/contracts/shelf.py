"""What lay in the job's directory at each look, and what had gone by then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.records.run import Look, RunRecord

_NUMBER: Final = re.compile(r"\d+")
#: Names under which a file is written before it is renamed.
_WHILE_WRITTEN: Final = re.compile(r"^\.?(?:tmp[-_.])?(.+?)(?:\.(?:tmp|temp|part|partial|incomplete))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """The checkpoints on disk at one look.

    Attributes:
        after: how many steps were done.
        present: in the order of their steps.
        deleted: those that were there at the look before, and are gone under any name.
        lasting: whether it stayed like this; otherwise it may have been seen in the middle of a save or a deletion.
    """

    after: int
    present: tuple[Checkpoint, ...]
    deleted: tuple[Checkpoint, ...] = ()
    lasting: bool = True


def moments(run: RunRecord, checkpoints: Sequence[Checkpoint]) -> Iterator[Moment]:
    """Yield what was there of the checkpoints at each look but the first, which is older than the run.

    One that goes on under another name was moved, not deleted; if that name is a checkpoint's, it is none before that.
    """
    shelves = [_there(look, index, checkpoints) for index, look in enumerate(run.looks)]
    moves = [_Move.of(*pair) for pair in pairwise(zip(run.looks, shelves, strict=True))]
    early = {path for move in moves for path in move.within}
    unseen = [checkpoint for checkpoint in checkpoints if not checkpoint.files]
    for index, look in enumerate(run.looks):
        gone = [c for c in unseen if c.saved_after <= look.step or index == len(run.looks) - 1]
        unseen = [checkpoint for checkpoint in unseen if checkpoint not in gone]
        if index:
            now = [checkpoint for checkpoint in shelves[index].values() if checkpoint.identity not in early]
            yield Moment(
                after=look.step,
                present=tuple(sorted(now, key=run.step_of)),
                deleted=(*moves[index - 1].deleted, *gone),
                lasting=(look.at_rest and not look.writing) or index == len(run.looks) - 1,
            )


def _there(look: Look, index: int, checkpoints: Sequence[Checkpoint]) -> dict[str, Checkpoint]:
    """Return the checkpoints of which something is there, by their paths; of several versions the last."""
    there = {entry.path for entry in look.tree.entries}
    return {c.path: c for c in checkpoints if c.look <= index and not there.isdisjoint(c.files)}


@dataclass(frozen=True, slots=True)
class _Move:
    """What became of the checkpoints that one look has and the next has not.

    Attributes:
        deleted: those of which the content is under no name that is new.
        within: the identities of those of which it is in another checkpoint.
    """

    deleted: tuple[Checkpoint, ...]
    within: tuple[str, ...]

    @classmethod
    def of(cls, before: tuple[Look, dict[str, Checkpoint]], after: tuple[Look, dict[str, Checkpoint]]) -> _Move:
        """Compare two looks, each with the checkpoints that are there."""
        (look, shelf), (later, now) = before, after
        old, new = _contents(look), _contents(later)
        came = {path: content for path, content in new.items() if path not in old}
        ours = {path for checkpoint in now.values() for path in checkpoint.files}
        deleted, within = [], []
        for checkpoint in (checkpoint for path, checkpoint in shelf.items() if path not in now):
            own = {old[path] for path in checkpoint.files if path in old}
            if not (own and own <= set(came.values())):
                deleted.append(checkpoint)
            elif own <= {came[path] for path in came if path in ours}:
                within.append(checkpoint.identity)
        return cls(tuple(deleted), tuple(within))


def _contents(look: Look) -> dict[str, str]:
    return {entry.path: entry.content for entry in look.tree.entries if entry.kind == "file"}


def unseen(run: RunRecord, seen: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Return the checkpoints that were saved and deleted again between two looks, by what was seen of their saves.

    Such a save is one to a file that is called as those of the checkpoints in `seen` but for the numbers.
    """
    kin = {_any_number(file): checkpoint for checkpoint in seen for file in checkpoint.files}
    known = {file for checkpoint in run.checkpoints for file in checkpoint.files}
    steps = {run.step_of(checkpoint) for checkpoint in run.written}
    found: dict[str, Checkpoint] = {}
    for save in run.saves:
        path = final_name(save.path)
        relative = kin.get(_any_number(path))
        if save.by != "open" and save.in_main_thread and relative and path not in known and save.step not in steps:
            name = "/".join(path.split("/")[: relative.path.count("/") + 1])
            number = int(_NUMBER.findall(name)[-1]) if _NUMBER.search(name) else None
            found[name] = Checkpoint(path=name, claimed=number, saved_after=save.step, kept=False, gone_after=save.step)
    return tuple(found.values())


def final_name(path: str) -> str:
    """Return the path that a file has once it is complete."""
    return "/".join(_WHILE_WRITTEN.sub(r"\1", part) for part in path.split("/"))


def _any_number(path: str) -> str:
    return _NUMBER.sub("#", path)


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
    before = {entry.path for entry in first.entries}
    moved = {entry.content for entry in last.entries if entry.kind == "file" and entry.path not in before}
    allowed = set(except_in)
    return tuple(
        entry.path
        for entry in first.entries
        if entry.kind == "file" and entry.path not in paths and entry.content not in moved and entry.path not in allowed
    )
