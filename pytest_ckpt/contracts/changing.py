"""Whether a setting that is changed for a resume takes effect, is refused, or is ignored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts import explain_changing, undecidable
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.contracts.resumes import earlier, nothing_to_resume, saved_steps
from pytest_ckpt.records.experiment import changed, resume, resume_changed
from pytest_ckpt.records.verdict import held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Changes, Experiment
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Finding, Verdict

#: How a run says no; one that hangs or is killed says nothing.
_REFUSALS: Final = frozenset({"raised", "exited"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does after a step: the steps that it saves, and the size of its batches, 0 if none was seen."""

    saved: frozenset[int]
    batch: int

    @classmethod
    def of(cls, run: RunRecord, *, after: int = 0) -> Plan:
        """Return what an uninterrupted run does after so many steps."""
        return cls(saved_steps(run, after=after, offset=0), _batch(run, after))

    @classmethod
    def resumed(cls, run: RunRecord, start: int) -> Plan:
        """Return what a run does that was resumed from a step."""
        saved = saved_steps(run, after=-1, offset=start)
        return cls(frozenset(step for step in saved if step > start), _batch(run, 0))


def _batch(run: RunRecord, after: int) -> int:
    """Return the most samples that entered the model at once; the last batch of an epoch may have fewer."""
    shapes = (shape for step in run.steps[after:] for shape in step.batch_shapes if shape)
    return max((shape[0] for shape in shapes), default=0)


@dataclass(frozen=True, slots=True)
class Changed:
    """The runs of a job with changed settings, and those without."""

    evidence: Evidence
    changes: Changes

    def plan(self) -> Iterator[Experiment]:
        """Run the whole job with the change; if that does anything, resume with it from each checkpoint that can tell."""
        if nothing_to_resume(self.evidence.baseline) is not None:
            return
        yield changed(self.changes)
        for checkpoint in self._telling():
            yield resume_changed(checkpoint.identity, self.changes)
            run = self._resumed(checkpoint)
            if run is not None and not self._ended(run, checkpoint):
                yield resume(checkpoint.identity)

    def judge(self, name: str) -> Verdict:
        """Compare each resume with the run that has the change from the beginning, and with the one that has it not."""
        undecided = self._undecided()
        if undecided is not None:
            return inconclusive(name, undecided)
        telling = self._telling()
        findings = [found for checkpoint in telling for found in self._deviations(checkpoint)]
        if findings:
            return violated(name, *findings)
        failed = [found for checkpoint in telling if (found := self._failed(checkpoint)) is not None]
        if failed:
            return inconclusive(name, *failed)
        return self._holds(name, telling)

    # -- what the change means ---------------------------------------------------------------------------------------

    @property
    def _whole(self) -> RunRecord | None:
        """The whole job with the change; None if it was not run to its end."""
        run, last = self.evidence.of(changed(self.changes)), self.evidence.baseline.last_step
        return run if run is not None and (run.outcome.ok or _asserts_late(run, last)) else None

    def _telling(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoints after which the run with the change does other things than the one without."""
        run, whole = self.evidence.baseline, self._whole
        if whole is None:
            return ()
        steps = ((checkpoint, run.step_of(checkpoint)) for checkpoint in earlier(run))
        return tuple(c for c, step in steps if Plan.of(run, after=step) != Plan.of(whole, after=step))

    def _undecided(self) -> Finding | None:
        run, whole = self.evidence.baseline, self._whole
        nothing = nothing_to_resume(run)
        if nothing is not None:
            return nothing
        if whole is None:
            return explain_changing.not_run(self.changes, self.evidence.of(changed(self.changes)))
        if not self._telling():
            other = Plan.of(run) != Plan.of(whole)
            return explain_changing.no_effect(self.changes, run, whole, before_only=other)
        resumed = [record for checkpoint in self._telling() if (record := self._resumed(checkpoint)) is not None]
        return None if any(record.asked_resume_from for record in resumed) else undecidable.ignores_resume_from()

    # -- what a resume makes of it -----------------------------------------------------------------------------------

    def _resumed(self, checkpoint: Checkpoint) -> RunRecord | None:
        return self.evidence.of(resume_changed(checkpoint.identity, self.changes))

    def _ended(self, run: RunRecord, checkpoint: Checkpoint) -> bool:
        """Say whether a resumed run ended well; what a job asserts after its last step counts in the baseline only."""
        due = 0 if self._whole is None else self._whole.last_step - self.evidence.baseline.step_of(checkpoint)
        return run.outcome.ok or _asserts_late(run, due)

    def _deviations(self, checkpoint: Checkpoint) -> Iterator[Finding]:
        """Yield what does not follow the change."""
        run, whole, baseline = self._resumed(checkpoint), self._whole, self.evidence.baseline
        if run is None or whole is None or not self._ended(run, checkpoint):
            return
        start = baseline.step_of(checkpoint)
        seen = explain_changing.Seen(
            changes=self.changes,
            checkpoint=checkpoint,
            start=start,
            before=Plan.of(baseline, after=start),
            wanted=Plan.of(whole, after=start),
            found=Plan.resumed(run, start),
        )
        if seen.wanted.saved not in {seen.found.saved, seen.before.saved}:
            yield explain_changing.other_saves(seen, self.evidence)
        if seen.wanted.batch not in {seen.found.batch, seen.before.batch}:
            yield explain_changing.other_batches(seen, self.evidence)

    def _failed(self, checkpoint: Checkpoint) -> Finding | None:
        """Return that a resume failed, if that is no refusal of the change."""
        run, plain = self._resumed(checkpoint), self.evidence.of(resume(checkpoint.identity))
        if run is None or self._ended(run, checkpoint):
            return None
        start = self.evidence.baseline.step_of(checkpoint)
        if plain is not None and not plain.outcome.ok:
            return explain_changing.broken_already(start, checkpoint, plain)
        return None if _refuses(run) else explain_changing.no_answer(self.changes, start, checkpoint, run)

    def _holds(self, name: str, telling: Iterable[Checkpoint]) -> Verdict:
        baseline = self.evidence.baseline
        runs = [
            (baseline.step_of(c), run, self._ended(run, c)) for c in telling if (run := self._resumed(c)) is not None
        ]
        what = explain_changing.text(self.changes)
        took, refused = ([step for step, _, ended in runs if ended is way] for way in (True, False))
        notes = [
            f"resuming from step {step} with {what} is refused: {explain_changing.first_line(run.outcome.message)}"
            for step, run, ended in runs
            if not ended
        ]
        effect = f"takes effect when training is resumed from {steps_text(took)}" if took else ""
        refusal = f"is refused when training is resumed from {steps_text(refused)}" if refused else ""
        return held(name, f"{what} {' and '.join(part for part in (effect, refusal) if part)}", *notes)


def _asserts_late(run: RunRecord, due: int) -> bool:
    asserts = run.outcome.status == "raised" and run.outcome.message.startswith("AssertionError")
    return asserts and 0 < due <= run.last_step


def _refuses(run: RunRecord) -> bool:
    return run.outcome.status in _REFUSALS and run.outcome.exit_code != 0
