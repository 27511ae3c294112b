"""The contract that an error in training does not cost what was trained since the last save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts.explain_saving import no_steps, steps_text
from pytest_ckpt.contracts.saving import holding_last
from pytest_ckpt.records.experiment import error
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ckpt.contracts.base import Contract, Evidence
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class OnError:
    """An error in the midst of a step leaves a checkpoint of the last finished step, and still ends the job as an error."""

    name: ClassVar[str] = "on_error"

    @classmethod
    def default(cls) -> Contract | None:
        """Leave it out of the default set."""
        return None

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Run the job once more, with an error in a step after one that is not saved anyway."""
        after = _step_between(evidence.baseline)
        return () if after is None else (error(after=after),)

    def judge(self, evidence: Evidence) -> Verdict:
        """Look for the last finished step in what the failed run has left."""
        baseline = evidence.baseline
        if baseline.last_step == 0:
            return inconclusive(self.name, no_steps())
        after = _step_between(baseline)
        if after is None:
            return inconclusive(self.name, _always_saved(baseline))
        run = evidence.of(error(after=after))
        if run is None or run.last_step != after:
            return inconclusive(self.name, _not_reached(after, run))
        if run.outcome.status == "finished":
            return violated(self.name, _swallowed(after))
        left = holding_last(run)
        if not left:
            return violated(self.name, _lost(after, run))
        return held(self.name, f"an error in step {after + 1} leaves step {after} in {left[-1].path}, and ends the job")


def _step_between(run: RunRecord) -> int | None:
    """Return the last step that is not saved and is followed by another: after it an error costs something."""
    saved = set(run.saved_steps)
    return max((step for step in range(1, run.last_step) if step not in saved), default=None)


def _always_saved(run: RunRecord) -> Finding:
    return Finding(
        title=f"each of the {run.last_step} steps is saved anyway, so an error costs nothing",
        fix="save less often in the test, so that an error can fall between two saves.",
    )


def _not_reached(after: int, run: RunRecord | None) -> Finding:
    found = "" if run is None else f": {run.last_step} steps were done, {run.outcome.message or run.outcome.status}"
    return Finding(
        title=f"the error that was to come in step {after + 1} did not come there{found}",
        cause="it is raised where the model is called for training; this job calls none in that step.",
        fix="raise an error in a test of your own with ckpt_run.",
    )


def _swallowed(after: int) -> Finding:
    return Finding(
        title=f"an error in step {after + 1} was swallowed: the job ended as if nothing had happened",
        cause="the exception is caught around training and not raised again.",
        fix="save in the handler and raise the exception again: a scheduler has to see that the job failed.",
        step=after,
        component="error",
    )


def _lost(after: int, run: RunRecord) -> Finding:
    kept = [run.step_of(checkpoint) for checkpoint in run.kept if not checkpoint.foreign]
    newest = max(kept, default=0)
    damaged = [checkpoint.problem for checkpoint in run.kept if checkpoint.problem]
    lost = f"step {after} is" if newest + 1 == after else f"steps {newest + 1} to {after} are"
    return Finding(
        title=f"an error in step {after + 1} costs what was trained since the last save: {lost} lost",
        rows=(
            ("saved", steps_text(run.saved_steps)),
            ("on disk", ", ".join(checkpoint.path for checkpoint in run.kept) or "none"),
            *(("damaged", problem) for problem in damaged),
        ),
        cause="nothing saves when training ends by an exception.",
        fix="save the last finished step in an exception handler around the training loop (Lightning: "
        "ModelCheckpoint(save_on_exception=True) or OnExceptionCheckpoint), and raise the exception again.",
        step=after,
        component="error",
    )
