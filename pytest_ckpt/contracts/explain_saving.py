"""Saying what is wrong with what a job left on disk, so that the reader need not look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.base import promised
from pytest_ckpt.records.verdict import Advice, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

#: How many steps or checkpoints are listed one by one.
_LISTED: Final = 16
#: What to do about a checkpoint that lacks trained parameters.
SAVE_ALL: Final = "save the whole state dict of everything the optimizer updates."
_FROM_DIR: Final = "build the paths of checkpoints from ckpt_job.dir."


def wrong_count(expected: int, found: list[Checkpoint], run: RunRecord, names: str, advice: Advice) -> Finding:
    """Describe a number of checkpoints that is not the one expected."""
    deleted = [c for c in promised(run) if not c.kept]
    rows = [("on disk", names), ("saved at", steps_text(run.saved_steps))]
    if deleted:
        rows.append(("deleted", listing(f"{c.path} (after step {c.gone_after})" for c in deleted)))
    foreign = [c.path for c in found if c.foreign]
    if foreign:
        rows.append(("not of this run", ", ".join(foreign)))
    more = len(found) > expected
    return Finding(
        title=f"{checkpoints_text(len(found))} on disk, expected {expected}",
        rows=tuple(rows),
        cause="more saves than expected, or older ones were not deleted."
        if more
        else advice.cause or _why_fewer(expected, run),
        fix=advice.fix
        or (_FROM_DIR if run.strays and not run.written else "")
        or "check the save interval and the limit on kept checkpoints against the number of steps"
        f" ({run.last_step} were trained).",
        component="count",
    )


def _why_fewer(expected: int, run: RunRecord) -> str:
    made = len([checkpoint for checkpoint in promised(run) if not checkpoint.foreign])
    if made < expected and run.strays:
        return saved_elsewhere(run)
    if made < expected:
        ever = f"only {made} {'was' if made == 1 else 'were'}" if made else "none was"
        return f"{ever} ever saved in {run.last_step} steps: the interval is longer than meant, or a save was skipped."
    return f"{made} were saved and some deleted again: the limit on kept checkpoints is lower than expected."


def returned_unsaved(run: RunRecord, advice: Advice) -> Finding:
    """Describe a model that was changed when training ended, after all was saved."""
    trained = len(run.steps[-1].state.get("update", {}))
    return Finding(
        title=f"the model that training returns is in no checkpoint: {len(run.unsaved)} of {trained} trained parameters were "
        f"changed after step {run.last_step}, the last, and not saved",
        rows=(("changed", f"{run.unsaved[0].split(':', 1)[-1]} first"), ("saved at", steps_text(run.saved_steps))),
        cause=advice.cause
        or "something changes the weights when training ends, such as an average that is swapped in.",
        fix=advice.fix or "save the model once more after that, or leave the trained weights in place.",
        step=run.last_step,
        component="weights",
    )


def missing_final(run: RunRecord, advice: Advice) -> Finding:
    """Describe why no checkpoint that remains holds the last step."""
    last = run.last_step
    kept = [checkpoint for checkpoint in run.kept if not checkpoint.foreign]
    of_last = [checkpoint for checkpoint in run.written if run.step_of(checkpoint) == last]
    claiming = [checkpoint for checkpoint in of_last if checkpoint.kept]
    if claiming:
        (title, cause), fix = _claims_last(claiming[-1], last), _how_to_mend_last(claiming[-1], run)
    else:
        (title, cause), fix = _what_is_missing(run, kept, of_last), _how_to_save_last(run)
    if claiming or (cause and not of_last):
        advice = Advice()  # what the files themselves tell comes before any setting
    concerned = (claiming or of_last)[-1:]
    return Finding(
        title=title,
        rows=_rows(run, kept),
        cause=advice.cause or cause,
        fix=advice.fix or fix,
        step=last,
        component="final step",
        checkpoint=concerned[0].identity if concerned else "",
    )


def _how_to_save_last(run: RunRecord) -> str:
    if run.strays and not run.written:
        return _FROM_DIR
    return "save once more when training has ended, after the last step."


def _how_to_mend_last(checkpoint: Checkpoint, run: RunRecord) -> str:
    """Return what to do about a save of the last step; another one like it would lack the same."""
    content = checkpoint.content
    lacks = not checkpoint.problem and content is not None and content.missing
    return SAVE_ALL if lacks else _how_to_save_last(run)


def _what_is_missing(run: RunRecord, kept: list[Checkpoint], gone: list[Checkpoint]) -> tuple[str, str]:
    """Return the sentence and, where the files alone tell it, the cause; `gone` held the last step."""
    last = run.last_step
    newest = max((run.step_of(checkpoint) for checkpoint in kept), default=0)
    begun = {save.path.split("/", 1)[0] for save in run.saves if save.step == last and not save.path.startswith("/")}
    lost = f"step {newest + 1} is" if newest + 1 == last else f"steps {newest + 1} to {last} are"
    if gone:
        return (
            (
                f"training ended at step {last}; {gone[-1].path} held it and was deleted again, the newest left is "
                f"{f'step {newest}' if newest else 'none'}: {lost} lost"
            ),
            "the limit on kept checkpoints removed the newest one.",
        )
    if not run.written:
        wrote = f" (a save to {min(begun)} began and left nothing)" if begun else ""
        return f"training ended at step {last} and no checkpoint was saved{wrote}", saved_elsewhere(run)
    if not kept:
        return f"training ended at step {last} and none of its checkpoints is left on disk", ""
    return f"training ended at step {last} and the newest checkpoint is of step {newest}: {lost} lost", ""


def _claims_last(checkpoint: Checkpoint, last: int) -> tuple[str, str]:
    """Describe a checkpoint that should hold the last step and does not."""
    content = checkpoint.content
    if checkpoint.problem:
        return f"the checkpoint of step {last} is damaged: {checkpoint.problem}", "a file was cut short or overwritten."
    if content is not None and content.missing:
        count = len(content.missing)
        return (
            f"{checkpoint.path} lacks {count} of {content.expected} trained parameters, {content.missing[0]} first",
            "",
        )
    if content is not None and last in content.steps:
        return (
            f"the last step, {last}, is saved as weights only in {checkpoint.path}; training can't be continued from it",
            (
                "other checkpoints of this job hold the optimizer, this one does not. If a model is all that is needed, ask for "
                "ckpt_final_step(weights_only=True)."
            ),
        )
    held_steps = steps_text(content.steps) if content is not None and content.steps else "several steps at once"
    return f"{checkpoint.path} was saved for step {last} and holds the state of {held_steps}", "a stale copy was saved."


def saved_elsewhere(run: RunRecord) -> str:
    """Name what was saved outside the job's directory, if anything was."""
    if run.strays:
        return f"the job saved outside ckpt_job.dir: {', '.join(run.strays[:3])}."
    return ""


def _rows(run: RunRecord, kept: list[Checkpoint]) -> tuple[tuple[str, ...], ...]:
    rows = [("trained", f"{run.last_step} steps"), ("saved at", steps_text(run.saved_steps))]
    rows.append(("on disk", listing(checkpoint.path for checkpoint in kept) or "none"))
    foreign = [checkpoint.path for checkpoint in run.kept if checkpoint.foreign]
    if foreign:
        rows.append(("not of this run", ", ".join(foreign)))
    return tuple(rows)


def unclear(checkpoint: Checkpoint, run: RunRecord) -> Finding:
    """Describe a checkpoint of the last step with unknown content."""
    return Finding(
        title=f"{checkpoint.path} was saved after the last step, {run.last_step}, and what it holds could not be recognised",
        cause="none of its tensors equals a state that was seen in training, also after a cast; or its format is unknown.",
        fix="if the save changes the tensors on purpose, check the file in a test of your own with ckpt_run.",
        step=run.last_step,
        checkpoint=checkpoint.identity,
    )


def is_unrecognised(run: RunRecord) -> bool:
    """Say whether files may be checkpoints that nobody could recognise as such: no framework's layout, no readable tensors."""
    return not run.written and not run.frameworks and bool(run.unrecognised)


def nothing_recognised(run: RunRecord) -> Finding:
    """Return the finding of a job whose files could not be recognised as checkpoints."""
    files = run.unrecognised
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""  # noqa: PLR2004 - enough to know them by
    return Finding(
        title=f"no checkpoint could be recognised among the files that were written: {', '.join(files[:3])}{more}",
        cause="none of them could be read as tensors that were seen in training.",
        fix="declare which of them are checkpoints, such as ckpt_job.layout('step_*.json'); if none is, the job saves nothing.",
    )


def no_steps() -> Finding:
    """Return the finding of a job in which no optimizer stepped."""
    return Finding(
        title="no optimizer step was seen",
        cause="the job trained nothing, or with an optimizer that is not a torch.optim.Optimizer, or in another process.",
        fix="call ckpt_job.step() after each optimizer step.",
    )


def steps_text(steps: Iterable[int]) -> str:
    """Return steps as text, `none` if there are none."""
    listed = list(steps)
    if len(listed) == 1:
        return f"step {listed[0]}"
    return f"steps {listing(listed)}" if listed else "none"


def listing(names: Iterable[object]) -> str:
    """Return names as text; of very many the first and the last, and how many there are."""
    texts = [str(name) for name in names]
    if len(texts) <= _LISTED:
        return ", ".join(texts)
    return f"{', '.join(texts[:4])} .. {', '.join(texts[-2:])} ({len(texts)} in all)"


def some_of(names: Iterable[object], most: int = 4) -> str:
    """Return the first of many names as text, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def checkpoints_text(count: int) -> str:
    """Return a number of checkpoints as text."""
    return "1 checkpoint" if count == 1 else f"{count} checkpoints"
