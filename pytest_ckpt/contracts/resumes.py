"""Which checkpoints tell something when they are resumed from, and what the resumed run saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.contracts import undecidable
from pytest_ckpt.contracts.base import promised, spread
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Finding


def earlier(run: RunRecord) -> tuple[Checkpoint, ...]:
    """Return the checkpoints to resume from, those of the last step left out: nothing follows them."""
    own = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
    return spread([checkpoint for checkpoint in own if run.step_of(checkpoint) < run.last_step])


def nothing_to_resume(run: RunRecord) -> Finding | None:
    """Return why no resume would tell anything, if the undisturbed run says so."""
    if run.last_step == 0:
        return no_steps()
    if not any(not checkpoint.foreign for checkpoint in promised(run)):
        return nothing_saved(run)
    return None if earlier(run) else undecidable.only_last_step(run)


def why_no_resume(evidence: Evidence) -> Finding | None:
    """Return why nothing can be said about what a resume does, whatever is run."""
    nothing = nothing_to_resume(evidence.baseline)
    if nothing is not None:
        return nothing
    asked = [record for experiment, record in evidence.runs.items() if experiment.kind == "resume"]
    return undecidable.ignores_resume_from() if not any(record.asked_resume_from for record in asked) else None


def saved_steps(run: RunRecord, *, after: int, offset: int) -> frozenset[int]:
    """Return the steps that a run saved, in the count of the uninterrupted one."""
    own = (checkpoint for checkpoint in promised(run) if not checkpoint.foreign)
    return frozenset(step + offset for checkpoint in own if (step := run.step_of(checkpoint)) > after)
