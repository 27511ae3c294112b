"""Contracts on what lies in a checkpoint: the state of the step it was saved for, and no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from pytest_ckpt.contracts.base import Contract, Evidence, OfBaseline, promised
from pytest_ckpt.contracts.explain_saving import (
    SAVE_ALL,
    is_unrecognised,
    no_steps,
    nothing_recognised,
    steps_text,
)
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from pytest_ckpt.records.checkpoint import Checkpoint, Content
    from pytest_ckpt.records.run import RunRecord

_AFTER: Final = "it was written after training had gone on: an asynchronous save without a copy of the state."


@dataclass(frozen=True)
class Faithful(OfBaseline):
    """Each checkpoint holds the state of the step it was saved for: not an older one, nor parts of several."""

    name: ClassVar[str] = "faithful"

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it."""
        return cls()

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the content of every checkpoint with the states that were seen."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        if not run.written:
            return inconclusive(self.name, nothing_saved(run))
        wrong = [finding for checkpoint in run.written if (finding := _wrong(checkpoint, run)) is not None]
        if wrong:
            return violated(self.name, *wrong)
        unclear = [_unclear(checkpoint) for checkpoint in run.written if _is_unclear(checkpoint)]
        if unclear:
            return inconclusive(self.name, *unclear)
        count = len(run.written)
        saved = steps_text(run.saved_steps)
        return held(self.name, f"{_saves(count)} of {saved}: each holds the state of its step", *_transforms(run))


def nothing_saved(run: RunRecord) -> Finding:
    """Return the finding of a job that wrote no checkpoint."""
    if is_unrecognised(run):
        return nothing_recognised(run)
    where = f"; it saved outside ckpt_job.dir: {', '.join(run.strays[:3])}" if run.strays else ""
    return Finding(
        title=f"no checkpoint was saved in {run.last_step} steps",
        cause=f"no file that holds training state appeared in ckpt_job.dir{where}.",
        fix="let the job save below ckpt_job.dir, at least once within its steps; ckpt_job.layout('pattern') declares "
        "checkpoints whose format is not known.",
    )


def _wrong(checkpoint: Checkpoint, run: RunRecord) -> Finding | None:
    """Return what is wrong with a checkpoint, if that is certain."""
    step = run.step_of(checkpoint)
    if checkpoint.problem:
        return _finding(checkpoint, step, f"{checkpoint.path} is damaged: {checkpoint.problem}")
    content = checkpoint.content
    if content is None or content.matched == 0:
        return None
    if content.is_mixture:
        return _mixture(checkpoint, content, step)
    if content.missing:
        names = ", ".join(name.split(":", 1)[-1] for name in content.missing[:3])
        title = f"{checkpoint.path} lacks {len(content.missing)} of {content.expected} trained parameters: {names}"
        return _finding(checkpoint, step, title, fix=SAVE_ALL)
    if step in content.steps or not _promises_step(checkpoint, run):
        return _too_late(checkpoint, content)
    return _finding(
        checkpoint,
        step,
        f"{checkpoint.path} was saved for step {step} and holds the state of {steps_text(content.steps)}",
        cause=_why_other(step, content, checkpoint),
        fix="take the state dict at the moment of the save, after the optimizer's step, from the model that is trained.",
    )


def _too_late(checkpoint: Checkpoint, content: Content) -> Finding | None:
    """Describe a save that holds a later step than the one it began after: training went on underneath it."""
    if checkpoint.begun_after is None or min(content.steps) <= checkpoint.begun_after:
        return None
    return _finding(
        checkpoint,
        checkpoint.begun_after,
        f"{checkpoint.path} was begun after step {checkpoint.begun_after} and holds the state of {steps_text(content.steps)}",
        cause=_AFTER,
        fix="copy the state before an asynchronous save, or wait for the save before the next update.",
    )


def _promises_step(checkpoint: Checkpoint, run: RunRecord) -> bool:
    """Say whether the checkpoint promises to hold the step after which it was written; a best model's copy does not."""
    if checkpoint.claim_is_step:
        return True
    return checkpoint in promised(run) and "best" not in checkpoint.path.lower() and checkpoint.in_main_thread


def _mixture(checkpoint: Checkpoint, content: Content, step: int) -> Finding:
    rows = tuple((name, steps_text(steps)) for name, steps in list(content.groups.items())[:6])
    return _finding(
        checkpoint,
        step,
        f"{checkpoint.path} mixes the states of several steps",
        rows=rows,
        cause="it was written while training went on, or put together from saves of different steps.",
        fix="copy the state before an asynchronous save, or wait for the save before the next update.",
    )


def _why_other(step: int, content: Content, checkpoint: Checkpoint) -> str:
    held_step = max(content.steps)
    if held_step > step:
        return _AFTER
    if held_step == step - 1:
        return "it was taken before the update of that step was applied."
    where = f"written after step {checkpoint.saved_after}" if checkpoint.saved_after != step else "written"
    return f"a stale copy was {where}: the saved object is not the one being trained, or was copied earlier."


def _finding(  # noqa: PLR0913 - the parts of a finding
    checkpoint: Checkpoint,
    step: int,
    title: str,
    *,
    rows: tuple[tuple[str, ...], ...] = (),
    cause: str = "",
    fix: str = "",
) -> Finding:
    return Finding(
        title=title, rows=rows, cause=cause, fix=fix, step=step, component="weights", checkpoint=checkpoint.identity
    )


def _is_unclear(checkpoint: Checkpoint) -> bool:
    content = checkpoint.content
    return content is None or content.matched == 0 or content.matched + len(content.rearranged) < content.expected


def _unclear(checkpoint: Checkpoint) -> Finding:
    content = checkpoint.content
    found = (
        "no file in it could be read" if content is None else f"{content.matched} of {content.expected} were recognised"
    )
    return Finding(
        title=f"{checkpoint.path}: what it holds could not be recognised ({found})",
        cause="its tensors equal no state that was seen in training, also after a cast, or the format is unknown.",
        fix="if the save changes the tensors on purpose, check them in a test of your own with ckpt_run.",
        checkpoint=checkpoint.identity,
    )


def _saves(count: int) -> str:
    return "1 save" if count == 1 else f"{count} saves"


def _transforms(run: RunRecord) -> tuple[str, ...]:
    names = sorted({c.content.transform for c in run.written if c.content is not None and c.content.transform})
    notes = (f"saved weights were recognised under: {', '.join(names)}",) if names else ()
    apart = next((c.content for c in run.written if c.content is not None and c.content.rearranged), None)
    if apart is None:
        return notes
    return (
        *notes,
        f"{len(apart.rearranged)} of {apart.expected} trained parameters are saved in another arrangement, and not compared",
    )
