"""Saying what an error in training costs, and what is wrong with what a handler saves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.difference_rows import components_text
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.trajectory import StepDifference
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

#: How the last finished step is saved when training ends by an exception, by the framework that trains.
_HANDLERS: Final = {
    "transformers": "catch the exception around trainer.train(), call trainer._save_checkpoint(trainer.model, trial=None), which "
    "writes checkpoint-N with the optimizer, and raise the exception again.",
    "lightning": "give ModelCheckpoint save_on_exception=True (2.6 and newer), or add the callback OnExceptionCheckpoint.",
}
_IN_HANDLER: Final = (
    "save the last finished step in an exception handler around the training loop, and raise the exception again."
)
_AS_USUAL: Final = "let the handler call the function that saves at other times."
#: What a step that is cut short may have advanced already.
_AHEAD: Final = frozenset({"counter", "lr", "scheduler", "param_groups"})


def always_saved(run: RunRecord) -> Finding:
    """Describe a job in which an error can cost nothing."""
    return Finding(
        title=f"each of the {run.last_step} steps is saved anyway, so an error costs nothing",
        fix="save less often in the test, so that an error can fall between two saves.",
    )


def not_reached(after: int, run: RunRecord | None) -> Finding:
    """Describe a job that did not meet the error."""
    found = "" if run is None else f": {run.last_step} steps were done, {run.outcome.message or run.outcome.status}"
    return Finding(
        title=f"the error that was to come in step {after + 1} did not come there{found}",
        cause="it is raised where the model is called for training; this job calls none in that step.",
        fix="raise an error in a test of your own with ckpt_run.",
    )


def went_on(after: int, run: RunRecord | None) -> Finding:
    """Describe a job that catches the error and goes on training."""
    end = "" if run is None else f": it ended after step {run.last_step}"
    return Finding(
        title=f"an error in step {after + 1} was caught, and the job trained on{end}",
        cause="it tries the step again, or passes over the batch: an error of this kind costs it nothing.",
        fix="raise an error that it does not catch, in a test of your own with ckpt_run.",
    )


def swallowed(after: int) -> Finding:
    """Describe a job that ends well after an error."""
    return Finding(
        title=f"an error in step {after + 1} was swallowed: the job ended as if nothing had happened",
        cause="the exception is caught around training and not raised again.",
        fix="save in the handler and raise the exception again: a scheduler has to see that the job failed.",
        step=after,
        component="error",
    )


def lost(after: int, run: RunRecord) -> Finding:
    """Describe steps that are not on disk, or not so that training goes on from them."""
    kept = [checkpoint for checkpoint in run.kept if not checkpoint.foreign]
    half = [checkpoint for checkpoint in kept if checkpoint.kind == "weights" and run.step_of(checkpoint) == after]
    newest = max((run.step_of(checkpoint) for checkpoint in kept if checkpoint not in half), default=0)
    damaged = [checkpoint.problem for checkpoint in run.kept if checkpoint.problem]
    steps = f"step {after} is" if newest + 1 == after else f"steps {newest + 1} to {after} are"
    what = f"; {half[-1].path} has the weights only, and training can't be continued from it" if half else ""
    return Finding(
        title=f"an error in step {after + 1} costs what was trained since the last save: {steps} lost{what}",
        rows=(
            ("saved", steps_text(run.saved_steps)),
            ("on disk", ", ".join(checkpoint.path for checkpoint in run.kept) or "none"),
            *(("damaged", problem) for problem in damaged),
        ),
        cause="what saves when training ends by an exception leaves out the optimizer, which other checkpoints of this job hold."
        if half
        else "nothing saves when training ends by an exception.",
        fix=_how_to_save(run, _AS_USUAL if half else _IN_HANDLER),
        step=after,
        component="optimizer" if half else "error",
        checkpoint=half[-1].identity if half else "",
    )


def _how_to_save(run: RunRecord, otherwise: str) -> str:
    names = [facts.name.replace("pytorch_lightning", "lightning") for facts in run.frameworks]
    return next((_HANDLERS[name] for name in reversed(names) if name in _HANDLERS), otherwise)


def broken_anyway(usual: Finding) -> Finding:
    """Describe a job that can't be resumed from other checkpoints either."""
    return Finding(
        title=f"what the handler saved can't be resumed from, and neither can what is saved without an error: {usual.title}",
        rows=usual.rows,
        fix="ckpt_resumable says what goes wrong there; mend that first.",
        step=usual.step,
        checkpoint=usual.checkpoint,
    )


def failure(found: Finding, left: Checkpoint, after: int) -> Finding:
    """Describe a resume that fails from what the handler saved only."""
    return replace(
        found,
        title=f"an error in step {after + 1} leaves {left.path}, from which training can't go on: {found.title}",
        cause="the handler saves other things, or in another form, than the regular save.",
        fix=_AS_USUAL,
    )


def difference(found: Finding, own: StepDifference, left: Checkpoint, after: int) -> Finding:
    """Describe state that what the handler saved does not restore, and other checkpoints do."""
    ahead = own.component in _AHEAD
    return replace(
        found,
        title=f"an error in step {after + 1} leaves {left.path}, which does not restore {components_text(own)} as other "
        "checkpoints do",
        cause="when the handler saved, the step that met the error had begun: what it had advanced by then is saved one step "
        "ahead."
        if ahead
        else f"the handler does not save the state of step {after} as the regular save does. {found.cause}",
        fix="let the handler save the state as the last finished step left it, with the function that saves at other times.",
    )


def count(run: RunRecord, left: Checkpoint, after: int, evidence: Evidence) -> Finding:
    """Describe a resume from what the handler saved that trains too many steps, or too few."""
    expected, trained = evidence.baseline.last_step - after, len(run.steps)
    number = "1 step" if trained == 1 else f"{trained} steps"
    return Finding(
        title=f"an error in step {after + 1} leaves {left.path}, from which {number} "
        f"{'was' if trained == 1 else 'were'} trained, expected {expected}",
        rows=(("last finished step", str(after)), ("last step", str(evidence.baseline.last_step))),
        cause="the step that met the error counts as done in what the handler saved, and it is skipped."
        if trained == expected - 1
        else "the number of the step that the handler saved is not that of the last finished step.",
        fix="count a step after its update, and save that number.",
        step=after,
        component="steps",
        checkpoint=left.identity,
    )
