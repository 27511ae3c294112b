"""Saying what was deleted that should have stayed, and what stayed that should have been deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.contracts.explain_saving import checkpoints_text, listing, some_of, steps_text
from pytest_ckpt.contracts.shelf import unseen
from pytest_ckpt.records.verdict import Advice, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.shelf import Moment
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord


def newest_deleted(newest: Checkpoint, run: RunRecord, advisor: Advisor) -> Finding:
    """Describe that the newest checkpoint is gone."""
    step = run.step_of(newest)
    left = [checkpoint for checkpoint in run.kept if not checkpoint.foreign]
    until = max((run.step_of(checkpoint) for checkpoint in left), default=0)
    advice = advisor.missing_final() if step == run.last_step else Advice()
    rest = f"what is left goes no further than step {until}" if until else "none of this run is left"
    return Finding(
        title=f"the newest checkpoint, {newest.path} of step {step}, was deleted again: {rest}",
        rows=_rows(run),
        cause=advice.cause or "the limit on kept checkpoints was applied to the newest one.",
        fix=advice.fix or "leave the newest checkpoint out of what may be deleted, whatever the order.",
        step=step,
        component="retention",
        checkpoint=newest.identity,
    )


def best_is_missing(best: int, of_best: Sequence[Checkpoint], run: RunRecord) -> Finding:
    """Describe that the best checkpoint is not there."""
    if of_best:
        gone = f"{of_best[-1].path} held it and was deleted again"
        cause = "the limit on kept checkpoints does not spare the best one."
        fix = "leave the best checkpoint out of what may be deleted, or keep a copy of it."
    else:
        gone = f"only {steps_text(run.saved_steps)} were saved" if run.saved_steps else "nothing was saved"
        cause = "the best step is not one of those that are saved: evaluations and saves have different intervals."
        fix = "save where the metric is computed."
    return Finding(
        title=f"the best checkpoint, of step {best}, is not on disk: {gone}",
        rows=_rows(run),
        cause=cause,
        fix=fix,
        step=best,
        component="retention",
        checkpoint=of_best[-1].identity if of_best else "",
    )


def too_many(moment: Moment, most: int, run: RunRecord) -> Finding:
    """Describe a moment at which more lay there than the limit allows."""
    found = len(moment.present)
    return Finding(
        title=f"{checkpoints_text(found)} lay on disk after step {moment.after}, at most {most} should",
        rows=(("on disk", _names(moment.present)), *_rows(run)),
        cause="older checkpoints were not deleted, or room was made before a save without counting the one to come."
        if found == most + 1
        else "older checkpoints were not deleted.",
        fix="delete after each save, until as many are left as should be.",
        step=moment.after,
        component="retention",
        checkpoint=moment.present[0].identity,
    )


def too_few(left: Sequence[Checkpoint], deleted: Sequence[Checkpoint], keep: int, run: RunRecord) -> Finding:
    """Describe that more was deleted than the limit asks for."""
    return Finding(
        title=f"{checkpoints_text(len(left))} left of {keep} that should be kept: {len(deleted)} were deleted",
        rows=_rows(run),
        cause="the limit on kept checkpoints is lower than expected, or something else deletes, too.",
        fix=f"delete only what is older than the {keep} newest.",
        component="retention",
        checkpoint=deleted[-1].identity,
    )


def wrong_order(moment: Moment, deleted: Checkpoint, spared: Checkpoint, run: RunRecord, *, by_name: bool) -> Finding:
    """Describe a deletion that spared an older checkpoint."""
    newer, older = run.step_of(deleted), run.step_of(spared)
    after = max(moment.after, deleted.saved_after)
    cause = (
        f"names are sorted as text, and {deleted.path!r} comes before {spared.path!r}."
        if by_name
        else "the order in which checkpoints are deleted is not that of their steps: it may be that of a metric or of "
        "the file times."
    )
    return Finding(
        title=f"after step {after} {deleted.path} of step {newer} was deleted, and {spared.path} of the older "
        f"step {older} was kept",
        rows=_rows(run),
        cause=cause,
        fix="sort by the number of the step, as a number."
        if by_name
        else f"sort by the number of the step; if step {older} is the best one, say so: ckpt_retention(best={older}).",
        step=after,
        component="retention",
        checkpoint=deleted.identity,
    )


def not_ours(files: Sequence[str], run: RunRecord) -> Finding:
    """Describe that something was deleted which this run did not write."""
    checkpoints = [c.path for c in run.checkpoints if c.foreign and not set(files).isdisjoint(c.files)]
    names = checkpoints or files
    what = "checkpoint" if checkpoints else "file"
    was = f"1 {what} was" if len(names) == 1 else f"{len(names)} {what}s were"
    return Finding(
        title=f"{was} deleted that this run did not write: {some_of(names)}",
        rows=(("deleted", some_of(files, most=12)), *_rows(run)),
        cause="what may be deleted is taken from a listing of the directory, and so what lay there before belongs to it.",
        fix="train into an empty directory, or delete only what this run has written.",
        component="retention",
        checkpoint=checkpoints[0] if checkpoints else "",
    )


def _rows(run: RunRecord) -> tuple[tuple[str, ...], ...]:
    kept = [checkpoint for checkpoint in run.kept if not checkpoint.foreign]
    saved = {run.step_of(checkpoint) for checkpoint in (*run.written, *unseen(run, run.written))}
    rows = [("saved at", steps_text(sorted(saved))), ("left", _names(kept) or "none")]
    foreign = [checkpoint.path for checkpoint in run.kept if checkpoint.foreign]
    return (*rows, ("not of this run", ", ".join(foreign))) if foreign else tuple(rows)


def _names(checkpoints: Iterable[Checkpoint]) -> str:
    return listing(checkpoint.path for checkpoint in checkpoints)
