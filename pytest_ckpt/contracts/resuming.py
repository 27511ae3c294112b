"""The contract that resuming from a checkpoint equals never having stopped."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_resuming, undecidable
from pytest_ckpt.contracts.base import Contract, Evidence, promised, spread
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps, steps_text
from pytest_ckpt.contracts.trajectory import LEVELS, Level, StepDifference, Trajectory
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import REPEAT, Experiment, control, resume
from pytest_ckpt.records.state import unreadable_in
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Seeds
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class Resumable:
    """Resuming from each checkpoint equals never having stopped.

    `level` says how much must agree with the uninterrupted run: `runs` (it goes on to the last step), `state` (weights,
    optimizer, learning rate, ... are restored), `data` (and the same batches follow), `exact` (and every update is
    bit-equal). `steps` names the steps to resume from. `tolerance` allows the norms of what is computed after the restored
    step to differ by that much, relatively, for a device whose kernels are not deterministic. `reseed=False` accepts a job
    that depends on the random state of the process it is built in.
    """

    name: ClassVar[str] = "resumable"
    level: Level = "exact"
    _: KW_ONLY
    steps: Sequence[int] | None = None
    tolerance: float | None = None
    reseed: bool = True

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            message = f"level must be one of {', '.join(LEVELS)}; got {self.level!r}"
            raise InvalidArgument(message)
        steps: object = self.steps
        if steps is not None and not (
            isinstance(steps, (list, tuple, range, set)) and steps and all(map(_is_step, steps))
        ):
            message = f"steps must list optimizer steps counted from 1, such as [4, 8]; got {steps!r}"
            raise InvalidArgument(message)
        tolerance: object = self.tolerance
        if tolerance is not None and not (isinstance(tolerance, float) and 0 < tolerance < 1):
            message = f"tolerance must be a relative difference between 0 and 1, such as 1e-5; got {tolerance!r}"
            raise InvalidArgument(message)

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it."""
        return cls()

    # -- which experiments -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Resume from each checkpoint, and see that a damage would be seen; where a resume differs, look twice."""
        if self._undecidable(evidence) is not None:
            return
        chosen = self._chosen(evidence.baseline)
        for checkpoint in chosen:
            yield resume(checkpoint.identity, seeds=self._seeds)
        differing = [
            checkpoint for checkpoint in chosen if self._difference(evidence, checkpoint, self._seeds) is not None
        ]
        if differing:
            yield REPEAT
            for checkpoint in differing:
                yield resume(checkpoint.identity, seeds="baseline")
        else:
            yield from self._controls(evidence)

    @property
    def _seeds(self) -> Seeds:
        return "fresh" if self.reseed else "baseline"

    def _controls(self, evidence: Evidence) -> Iterator[Experiment]:
        """Ask for the control: a resume from a damaged copy, which has to differ."""
        if self.level == "runs":
            return
        run = evidence.baseline
        for checkpoint in self._chosen(run):
            step = run.step_of(checkpoint)
            saved = {optimizer for record in run.steps[:step] for optimizer in record.ticks}
            updates = [record for record in run.steps[step:] if record.ticks]
            telling = [
                record for record in updates if saved & record.ticks.keys()
            ] or updates  # what is damaged takes part
            if telling:
                yield control(checkpoint.identity, stop_after=telling[0].index - step)
                return

    def _chosen(self, run: RunRecord) -> tuple[Checkpoint, ...]:
        """Return the checkpoints to resume from: those of the named steps, else a spread of all that were written."""
        written = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
        if self.steps is not None:
            return tuple(checkpoint for checkpoint in written if run.step_of(checkpoint) in self.steps)
        return spread(written)

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare every resumed run with the uninterrupted one."""
        undecidable = self._undecidable(evidence)
        if undecidable is not None:
            return inconclusive(self.name, undecidable)
        chosen = self._chosen(evidence.baseline)
        findings = [found for checkpoint in chosen if (found := self._broken(evidence, checkpoint)) is not None]
        noise = self._noise(evidence)
        if findings and noise is not None:
            return inconclusive(self.name, noise)
        if findings:
            return violated(self.name, *findings)
        rounded = [found for checkpoint in chosen if (found := self._rounding(evidence, checkpoint)) is not None]
        if rounded:
            return inconclusive(self.name, *rounded)
        blind = self._blind(evidence)
        if blind is not None:
            return inconclusive(self.name, blind)
        return self._holds(evidence, chosen)

    def _undecidable(self, evidence: Evidence) -> Finding | None:
        """Return why nothing can be said about resuming, whatever is run."""
        run = evidence.baseline
        written = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
        if run.last_step == 0:
            return no_steps()
        if not written:
            return nothing_saved(run)
        if not self._chosen(run):
            return undecidable.no_such_steps(self.steps or (), run)
        if all(run.step_of(checkpoint) >= run.last_step for checkpoint in self._chosen(run)):
            return undecidable.only_last_step(run)
        asked = [record for experiment, record in evidence.runs.items() if experiment.kind == "resume"]
        if asked and not any(record.asked_resume_from for record in asked):
            return undecidable.ignores_resume_from()
        return None

    def _broken(self, evidence: Evidence, checkpoint: Checkpoint) -> Finding | None:
        """Return what is wrong with resuming from a checkpoint."""
        fresh = evidence.of(resume(checkpoint.identity, seeds=self._seeds))
        if fresh is None:
            return None
        failed = explain_resuming.failure(fresh, checkpoint, evidence)
        if failed is not None:
            return failed
        difference = self._difference(evidence, checkpoint, self._seeds)
        if difference is None or self._rounding(evidence, checkpoint) is not None:
            return None
        again = evidence.of(resume(checkpoint.identity, seeds="baseline"))
        if self.reseed and again is not None and self._agrees(evidence, again, checkpoint):
            return explain_resuming.unseeded(difference, checkpoint, evidence)
        return explain_resuming.difference(difference, fresh, checkpoint, evidence)

    def _rounding(self, evidence: Evidence, checkpoint: Checkpoint) -> Finding | None:
        """Return that a resume differs in the last bits of what it computes, if that is all."""
        found = self._difference(evidence, checkpoint, self._seeds)
        if isinstance(found, StepDifference) and found.is_rounding:
            return undecidable.rounding(found, checkpoint)
        return None

    def _difference(self, evidence: Evidence, checkpoint: Checkpoint, seeds: Seeds) -> StepDifference | str | None:
        """Return how the resume from a checkpoint differs, `count` for the number of its steps only."""
        run = evidence.of(resume(checkpoint.identity, seeds=seeds))
        return None if run is None else self._compare(evidence, run, checkpoint)

    def _compare(self, evidence: Evidence, run: RunRecord, checkpoint: Checkpoint) -> StepDifference | str | None:
        baseline = evidence.baseline
        after = baseline.step_of(checkpoint)
        if after >= baseline.last_step:
            return None  # nothing is left to compare: that a finished run trains nothing is a promise of its own
        found = Trajectory.of(baseline, self.tolerance).first_difference(run.steps, after, self.level)
        if found is not None:
            return found
        ended_well = run.outcome.ok and run.experiment.stop_after is None
        return "count" if ended_well and len(run.steps) != baseline.last_step - after else None

    def _agrees(self, evidence: Evidence, run: RunRecord, checkpoint: Checkpoint) -> bool:
        return run.outcome.ok and self._compare(evidence, run, checkpoint) is None

    def _noise(self, evidence: Evidence) -> Finding | None:
        """Return that the job differs from itself, if it does."""
        repeated = evidence.of(REPEAT)
        if repeated is None:
            return None
        baseline = evidence.baseline
        found = Trajectory.of(baseline, self.tolerance).first_difference(repeated.steps, 0, self.level)
        if found is None and len(repeated.steps) == baseline.last_step:
            return None
        return undecidable.not_reproducible(found, repeated, baseline)

    def _blind(self, evidence: Evidence) -> Finding | None:
        """Return that a difference would not have been seen, or could not be read."""
        for experiment, run in evidence.runs.items():
            if experiment.kind != "control" or "nothing could be changed" in " ".join(run.notes):
                continue
            checkpoint = evidence.baseline.checkpoint(experiment.checkpoint or "")
            if run.outcome.ok and self._compare(evidence, run, checkpoint) is None:
                return undecidable.blind(checkpoint)
        unreadable = unreadable_in(evidence.baseline.steps[-1].state)
        unreadable = {name: why for name, why in unreadable.items() if name not in {"data", "gradients"}}
        return undecidable.unreadable(unreadable) if unreadable and self.level != "runs" else None

    def _holds(self, evidence: Evidence, chosen: Sequence[Checkpoint]) -> Verdict:
        run = evidence.baseline
        steps = [run.step_of(checkpoint) for checkpoint in chosen]
        what = {
            "runs": "goes on to the last step",
            "state": "restores the state",
            "data": "restores the state and goes on with the same batches",
            "exact": "equals never having stopped",
        }[self.level]
        written = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
        left = len(written) - len(chosen)
        notes = [f"{left} of {len(written)} checkpoints were not resumed from"] if left else []
        notes += self._finished(evidence, chosen)
        if self.tolerance is not None:
            what += f", within a tolerance of {self.tolerance:g} on norms"
        return held(self.name, f"resuming from {steps_text(steps)} of {run.last_step} {what}", *notes)

    def _finished(self, evidence: Evidence, chosen: Sequence[Checkpoint]) -> Iterator[str]:
        """Tell of a finished run that does not simply end when it is resumed."""
        last = evidence.baseline.last_step
        for checkpoint in chosen:
            run = evidence.of(resume(checkpoint.identity, seeds=self._seeds))
            if run is None or evidence.baseline.step_of(checkpoint) < last:
                continue
            if run.steps:
                yield f"resuming the finished run from step {last} trained {len(run.steps)} more steps"
            if not run.outcome.ok:
                yield f"resuming the finished run from step {last} did not end well: {run.outcome.message}"


def _is_step(step: object) -> bool:
    return isinstance(step, int) and not isinstance(step, bool) and step >= 1
