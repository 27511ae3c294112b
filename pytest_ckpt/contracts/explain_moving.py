"""Saying what is not found any more once a run's directory has been moved."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.difference_rows import components_text, rows
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.trajectory import StepDifference
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import BestModel, RunRecord

_RELATIVE: Final = "store paths relative to the checkpoint, and look for them from where it lies now."


def pointer(path: str, target: str, *, is_link: bool) -> Finding:
    """Describe a link or a file that leads to something in the directory by its absolute path."""
    what = "is absolute" if is_link else "is an absolute path in a text file"
    return Finding(
        title=f"{path} -> {target} {what}; it dangles once the directory has been moved",
        cause="it was made from the whole path of what it points to; a copy of the directory would point into the old one.",
        fix="make the link relative, such as os.symlink(os.path.relpath(target, os.path.dirname(link)), link)."
        if is_link
        else "write the path relative to the file, or the name alone.",
        component="pointer",
        checkpoint=path,
    )


def broken_already(found: Finding) -> Finding:
    """Describe a resume that is broken where the checkpoint was saved, too."""
    return Finding(
        title=f"a resume is broken in the old place already, so a move can't be judged: {found.title}",
        rows=found.rows,
        fix="ckpt_resumable says what goes wrong there; mend that first.",
        step=found.step,
        checkpoint=found.checkpoint,
    )


def still_there(found: Finding, checkpoint: Checkpoint) -> Finding:
    """Describe a job that was told of the old directory before the move, and that therefore misses something."""
    return Finding(
        title=f"the job went on writing into the old directory, so it can't be said what a move breaks: {found.title}",
        rows=found.rows,
        cause="its objects, such as a Trainer that a fixture made, were built with the path of the old directory.",
        fix="build them in the test's own body, with ckpt_job.dir.",
        step=found.step,
        checkpoint=checkpoint.identity,
    )


def failure(found: Finding) -> Finding:
    """Describe a resume that fails after the move only."""
    return replace(
        found,
        title=f"once the directory has been moved, {found.title}",
        cause="in the old place the same resume ends well: something is looked for by its absolute path there, which is stored "
        "in what was saved, or in an object that was built before the move.",
        fix=_RELATIVE,
    )


def steps(
    found: StepDifference | str, checkpoint: Checkpoint, there: RunRecord, moved: RunRecord, evidence: Evidence
) -> Finding:
    """Describe a resume that goes on otherwise after the move."""
    start = evidence.baseline.step_of(checkpoint)
    if isinstance(found, str):
        what = f"trains {len(moved.steps)} steps, and {len(there.steps)} in the old place"
    else:
        what = f"goes on otherwise than in the old place: step {start + found.step} differs in {components_text(found)}"
    return Finding(
        title=f"once the directory has been moved, resuming from step {start} {what}",
        rows=() if isinstance(found, str) else _rows(found, evidence),
        cause="something is looked for by its absolute path in the old directory, and left out without an error where it is "
        "not there.",
        fix=f"{_RELATIVE[:-1]}; and fail where it is missing.",
        step=start + (len(moved.steps) if isinstance(found, str) else found.step),
        component="steps" if isinstance(found, str) else found.component,
        checkpoint=checkpoint.identity,
    )


def _rows(found: StepDifference, evidence: Evidence) -> tuple[tuple[str, ...], ...]:
    """Return the rows of the difference; what is compared with is the resume in the old place."""
    return tuple((title, text.replace("uninterrupted", "in the old place")) for title, text in rows(found, evidence))


def best(
    there: BestModel, moved: BestModel, checkpoint: Checkpoint, evidence: Evidence, *, other_weights: bool
) -> Finding:
    """Describe a best checkpoint that the framework does not find any more, or does not know any more."""
    start = evidence.baseline.step_of(checkpoint)
    advice = evidence.advisor.component("moved", checkpoint)
    now = "none is recorded any more" if moved.path is None else f"the record says {moved.path}"
    ended = f", and training ended with other weights than {there.path}" if there.loads and other_weights else ""
    return Finding(
        title=f"once the directory has been moved and training resumed from step {start}, {there.path} is not the recorded "
        f"best any more: {now}{ended}",
        rows=(
            ("in the old place", f"{there.path}, by {there.metric}"),
            ("moved", moved.path or "none"),
            *((("to be loaded", "the best, when training ends"),) if there.loads else ()),
        ),
        cause=advice.cause or "the path of the best checkpoint is stored as an absolute one.",
        fix=advice.fix or _RELATIVE,
        component="best",
        checkpoint=there.path or "",
    )


def last_weights(names: Sequence[str], checkpoint: Checkpoint, moved: RunRecord) -> Finding:
    """Describe a job that trains alike after the move and ends with other weights."""
    total = len(moved.last_weights)
    return Finding(
        title=f"once the directory has been moved, training goes on alike from {checkpoint.path} and ends with other weights: "
        f"{len(names)} of {total} parameters differ, {names[0].split(':', 1)[-1]} first",
        cause="what is loaded when training has ended, such as the best or an averaged model, is looked for in the old "
        "directory.",
        fix=_RELATIVE,
        component="weights",
        checkpoint=checkpoint.identity,
    )
