"""Saying why nothing can be said about resuming from a job's checkpoints, and what would help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.contracts.difference_rows import components_text, rows
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.contracts.trajectory import LAST_BITS, StepDifference
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord


def rounding(found: StepDifference, checkpoint: Checkpoint) -> Finding:
    """Describe a resumed run that differs in the last bits of what it computes, from the same state and data."""
    return Finding(
        title=f"after resuming from {checkpoint.path}, step {found.step} differs from the uninterrupted run in the last bits "
        f"of its {found.component} only, by less than {LAST_BITS:.0e} of their norms",
        rows=tuple(rows(found, None)),
        cause="all that was restored agrees; another kernel computed with it: one that is chosen or fused after a warm-up "
        "(torch.jit, autotuning), or one whose order of summation is not fixed.",
        fix="allow for it by name, ckpt_resumable(tolerance=1e-5), or switch the warm-up off.",
        step=found.step,
        component=found.component,
        checkpoint=checkpoint.identity,
    )


def not_reproducible(found: StepDifference | None, repeated: RunRecord, baseline: RunRecord) -> Finding:
    """Describe a job that differs from itself."""
    if found is None:
        where = f"trained {len(repeated.steps)} steps, then {baseline.last_step}"
    else:
        where = f"differs from itself at step {found.step} in {components_text(found)}"
    return Finding(
        title=f"the job is not reproducible: run twice from equal seeds it {where}",
        rows=() if found is None else tuple(rows(found, None)),
        cause="something in it is random beyond the seeds of torch, numpy and Python: time, threads, hashes, a device's kernels.",
        fix="make the job deterministic (torch.use_deterministic_algorithms, seeded workers), or ask for a lower level: "
        "ckpt_resumable('state').",
        step=None if found is None else found.step,
    )


def no_such_steps(steps: Sequence[int], run: RunRecord) -> Finding:
    """Describe a marker that names steps which were not saved."""
    return Finding(
        title=f"no checkpoint was saved at {steps_text(steps)}; this job saved at {steps_text(run.saved_steps)}",
        fix="name steps that are saved.",
    )


def only_last_step(run: RunRecord) -> Finding:
    """Describe a job whose only checkpoint leaves nothing to train."""
    return Finding(
        title=f"every checkpoint is of the last step, {run.last_step}: a resume trains nothing that could be compared",
        cause="the job saves only when it ends.",
        fix="save at least once earlier in the test, so that steps follow the checkpoint.",
    )


def ignores_resume_from() -> Finding:
    """Describe a job that never asks where to resume from."""
    return Finding(
        title="the job never read ckpt_job.resume_from",
        cause="each experiment started from the beginning, so nothing was resumed.",
        fix="pass ckpt_job.resume_from to the training code, such as trainer.train(resume_from_checkpoint=ckpt_job.resume_from), "
        "or call ckpt_job.train(trainer).",
    )


def blind(checkpoint: Checkpoint) -> Finding:
    """Describe a check that would not see a broken resume."""
    return Finding(
        title=f"the check is blind here: resuming from a damaged copy of {checkpoint.path} showed no difference either",
        cause="what a resume reads is not what is in this checkpoint, or training does not change anything (lr 0, frozen model).",
        fix="let the job train something that the checkpoint restores.",
        checkpoint=checkpoint.identity,
    )


def unreadable(reasons: Mapping[str, str]) -> Finding:
    """Describe state that the probe could not read."""
    return Finding(
        title=f"could not be read and so not be compared: {', '.join(reasons)}",
        rows=tuple(reasons.items()),
        fix="ask for a level that does not need it, such as ckpt_resumable('runs').",
    )
