"""What lay in the job's directory at each look, and what had gone by then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.records.run import RunRecord

_NUMBER: Final = re.compile(r"\d+")
#: Names under which a file is written before it is renamed.
_WHILE_WRITTEN: Final = re.compile(r"^\.?(?:tmp[-_.])?(.+?)(?:\.(?:tmp|temp|part|partial|incomplete))?$")


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
    unseen = [checkpoint for checkpoint in checkpoints if not checkpoint.files]
    for index, look in enumerate(run.looks):
        there = {entry.path for entry in look.tree.entries}
        now = {
            checkpoint.path: checkpoint
            for checkpoint in checkpoints
            if checkpoint.look <= index and not there.isdisjoint(checkpoint.files)
        }
        gone = [c for c in unseen if c.saved_after <= look.step or index == len(run.looks) - 1]
        unseen = [checkpoint for checkpoint in unseen if checkpoint not in gone]
        if index:
            yield Moment(
                after=look.step,
                present=tuple(sorted(now.values(), key=run.step_of)),
                deleted=(*(checkpoint for path, checkpoint in before.items() if path not in now), *gone),
                lasting=(look.at_rest and not look.writing) or index == len(run.looks) - 1,
            )
        before = now


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
