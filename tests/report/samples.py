"""Items and verdicts as sessions have them, for rendering."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.verdict import (
    Finding,
    ItemReport,
    JobResult,
    Timeline,
    Verdict,
    held,
    inconclusive,
    not_applicable,
    violated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

TEST: Final = "tests/test_checkpoints.py::test_sft"
TIMELINE: Final = Timeline(steps=10, saved=(4, 8), kept=(4, 8))
JOB: Final = JobResult(
    test=TEST,
    timeline=TIMELINE,
    frameworks=("transformers 5.23.0",),
    experiments=(("baseline", "0.41"), ("resume from checkpoint-4", "0.32")),
    kept_dirs=("/tmp/pytest-3/test_sft0/job-evidence: the runs' journals and copies of their checkpoints",),  # noqa: S108
    seconds=1.25,
)


def optimizer_finding(step: int) -> Finding:
    """Return the finding of a resume without the optimizer's state."""
    return Finding(
        title=f"resumed from step {step}: step {step + 1} differs from the uninterrupted run in optimizer, lr",
        rows=(
            ("data", "same batches"),
            ("weights", "same"),
            (
                "optimizer",
                "exp_avg, exp_avg_sq of 14 of 14 parameters are zero (saved norm 1.7e-02)   <- first difference",
            ),
            ("lr", "5.0e-05, uninterrupted 3.0e-05"),
        ),
        cause=f"checkpoint-{step} has no optimizer.pt; transformers resumes without it and says nothing.",
        fix="save the optimizer (save_only_model=False), or do not promise to resume from this checkpoint.",
        step=step + 1,
        component="optimizer",
        checkpoint=f"checkpoint-{step}",
    )


def stale_finding(step: int) -> Finding:
    """Return the finding of a checkpoint that holds an older step."""
    return Finding(
        title=f"checkpoint-{step} was saved for step {step} and holds the state of step 4",
        cause="a stale copy was written: the saved object is not the one being trained, or was copied earlier.",
        fix="take the state dict at the moment of the save, from the model that is trained.",
        step=step,
        component="weights",
        checkpoint=f"checkpoint-{step}",
    )


BROKEN: Final = violated("resumable", optimizer_finding(4), optimizer_finding(8))
UNDECIDED: Final = inconclusive(
    "resumable",
    Finding(
        title="the job never read ckpt_job.resume_from",
        cause="each experiment started from the beginning, so nothing was resumed.",
        fix="pass ckpt_job.resume_from to the training code, such as "
        "trainer.train(resume_from_checkpoint=ckpt_job.resume_from), or call ckpt_job.train(trainer).",
    ),
)
HOLDS: Final[Mapping[str, Verdict]] = {
    "final_step": held("final_step", "step 10, the last one, is on disk in checkpoint-10"),
    "count": not_applicable("count", "how many checkpoints should remain does not follow from the configuration"),
    "faithful": held("faithful", "2 saves of steps 4, 8: each holds the state of its step"),
    "resumable": held("resumable", "resuming from steps 4, 8 of 10 equals never having stopped"),
}
_OUTCOMES: Final = {"held": "passed", "violated": "failed", "inconclusive": "failed", "not_applicable": "skipped"}


def item(test: str, verdict: Verdict, *, outcome: str = "", job: JobResult = JOB) -> ItemReport:
    """Return what an item came to."""
    return ItemReport(
        nodeid=nodeid(test, verdict.contract),
        contract=verdict.contract,
        outcome=outcome or _OUTCOMES[verdict.status],
        verdict=verdict,
        job=replace(job, test=test),
    )


def items(test: str, *other: Verdict, job: JobResult = JOB) -> list[ItemReport]:
    """Return the items of a test in which everything holds but for `other` verdicts."""
    verdicts = {**HOLDS, **{verdict.contract: verdict for verdict in other}}
    return [item(test, verdict, job=job) for verdict in verdicts.values()]


def failed_job(test: str, *contracts: str) -> list[ItemReport]:
    """Return the items of a test whose job did not run."""
    error = "the job failed before its first optimizer step: ValueError: no GPU\n  Traceback (most recent call last):"
    job = JobResult(test=test, error=error)
    return [ItemReport(nodeid=nodeid(test, name), contract=name, outcome="error", job=job) for name in contracts]


def nodeid(test: str, contract: str) -> str:
    """Return the node id of an item."""
    return f"{test[:-1]}-{contract}]" if test.endswith("]") else f"{test}[{contract}]"
