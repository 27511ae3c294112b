"""The contract that a resumed run saves where the uninterrupted one would have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import undecidable
from pytest_ckpt.contracts.base import Contract, Evidence, promised, spread
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps, steps_text
from pytest_ckpt.records.experiment import resume
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class StableSchedule:
    """After a resume the same steps are saved as without the interruption, and none that lies before it again."""

    name: ClassVar[str] = "stable_schedule"

    @classmethod
    def default(cls) -> Contract | None:
        """Leave it out of the default set."""
        return None

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Resume from each checkpoint that steps follow."""
        return [resume(checkpoint.identity) for checkpoint in earlier(evidence.baseline)]

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare what each resumed run saved with what the uninterrupted one saved after the same step."""
        undecided = why_no_resume(evidence)
        if undecided is not None:
            return inconclusive(self.name, undecided)
        chosen = earlier(evidence.baseline)
        findings = [finding for checkpoint in chosen for finding in _deviations(evidence, checkpoint)]
        if findings:
            return violated(self.name, *findings)
        failed = [finding for checkpoint in chosen if (finding := _failed(evidence, checkpoint)) is not None]
        if failed:
            return inconclusive(self.name, *failed)
        starts = steps_text(evidence.baseline.step_of(checkpoint) for checkpoint in chosen)
        return held(self.name, f"resumed from {starts}, the same steps are saved as without the interruption")


def earlier(run: RunRecord) -> tuple[Checkpoint, ...]:
    """Return the checkpoints to resume from, those of the last step left out: nothing follows them."""
    own = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
    return spread([checkpoint for checkpoint in own if run.step_of(checkpoint) < run.last_step])


def why_no_resume(evidence: Evidence) -> Finding | None:
    """Return why nothing can be said about what a resume does, whatever is run."""
    run = evidence.baseline
    if run.last_step == 0:
        return no_steps()
    if not any(not checkpoint.foreign for checkpoint in promised(run)):
        return nothing_saved(run)
    if not earlier(run):
        return undecidable.only_last_step(run)
    asked = [record for experiment, record in evidence.runs.items() if experiment.kind == "resume"]
    return undecidable.ignores_resume_from() if not any(record.asked_resume_from for record in asked) else None


def _deviations(evidence: Evidence, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Yield in what the saves after a resume differ; nothing of a run that failed."""
    run, baseline = evidence.of(resume(checkpoint.identity)), evidence.baseline
    if run is None or not run.outcome.ok:
        return
    start = baseline.step_of(checkpoint)
    expected, found = _saved(baseline, after=start, offset=0), _saved(run, after=-1, offset=start)
    again = sorted(step for step in found if step <= start)
    missing, unexpected = sorted(expected - found), sorted(found - expected - set(again))
    if missing or unexpected or again:
        yield _finding(checkpoint, start, expected, found, missing, unexpected, again)


def _saved(run: RunRecord, *, after: int, offset: int) -> frozenset[int]:
    """Return the steps that a run saved, in the count of the uninterrupted one."""
    own = (checkpoint for checkpoint in promised(run) if not checkpoint.foreign)
    return frozenset(step + offset for checkpoint in own if (step := run.step_of(checkpoint)) > after)


def _finding(  # noqa: PLR0913, PLR0917 - the parts of the comparison
    checkpoint: Checkpoint,
    start: int,
    expected: frozenset[int],
    found: frozenset[int],
    missing: list[int],
    unexpected: list[int],
    again: list[int],
) -> Finding:
    parts = [
        f"{what} {steps_text(steps)}"
        for what, steps in (("missing", missing), ("unexpected", unexpected), ("saved again", again))
        if steps
    ]
    return Finding(
        title=f"resumed from step {start}, other steps are saved than without the interruption: {'; '.join(parts)}",
        rows=(("uninterrupted", steps_text(sorted(expected))), ("resumed", steps_text(sorted(found)))),
        cause="the interval is counted from the step that was resumed from, not from the beginning of the run."
        if missing and unexpected
        else "what was resumed from is written once more."
        if again and not missing and not unexpected
        else "the settings of the resumed run, or what it restores of them, differ from those of the first.",
        fix="restore the step counter before the first save is decided, and save by that counter.",
        step=min([*missing, *unexpected, *again]),
        component="schedule",
        checkpoint=checkpoint.identity,
    )


def _failed(evidence: Evidence, checkpoint: Checkpoint) -> Finding | None:
    run = evidence.of(resume(checkpoint.identity))
    if run is None or run.outcome.ok:
        return None
    start = evidence.baseline.step_of(checkpoint)
    return Finding(
        title=f"resuming from step {start} did not end well, so its saves can't be compared: {run.outcome.message}",
        fix="ckpt_resumable says what goes wrong there.",
        checkpoint=checkpoint.identity,
    )
