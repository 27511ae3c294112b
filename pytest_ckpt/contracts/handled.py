"""What a resume makes of the checkpoint that a handler of errors has saved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_ckpt.contracts import explain_failing, explain_resuming
from pytest_ckpt.contracts.resumes import earlier
from pytest_ckpt.contracts.trajectory import StepDifference, Trajectory
from pytest_ckpt.records.experiment import resume, resume_after_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Finding


@dataclass(frozen=True, slots=True)
class Handled:
    """A resume from what a handler saved, beside one from a checkpoint that was saved without an error.

    Compared is the state that is restored, and how many steps follow. Which batches follow is not: the step that met the
    error had taken its batch, and some frameworks restore no position within an epoch.

    Attributes:
        left: what the handler saved.
        after: the last finished step.
    """

    evidence: Evidence
    left: Checkpoint
    after: int

    def plan(self) -> Iterator[Experiment]:
        """Resume from it; where that is not as it should be, see whether it is so from another checkpoint, too."""
        yield resume_after_error(self.left.identity, after=self.after)
        if self._failure is not None or self._difference is not None:
            for checkpoint in self._usual:
                yield resume(checkpoint.identity)

    @property
    def ignores_resume_from(self) -> bool:
        """Whether the job never asked where to resume from."""
        return self._run is not None and not self._run.asked_resume_from

    def undecided(self) -> Finding | None:
        """Return that a resume fails from every checkpoint, whoever saved it."""
        usual = self._usual_failure
        return None if self._failure is None or usual is None else explain_failing.broken_anyway(usual)

    def broken(self) -> Finding | None:
        """Return what is wrong with what the handler saved, and is not wrong with other checkpoints."""
        if self._run is None:
            return None
        if self._failure is not None:
            return explain_failing.failure(self._failure, self.left, self.after)
        own = self._own_difference
        if own is None:
            return None
        if isinstance(own, str):
            return explain_failing.count(self._run, self.left, self.after, self.evidence)
        found = explain_resuming.difference(own, self._run, self.left, self.evidence)
        return explain_failing.difference(found, own, self.left, self.after)

    def notes(self) -> Iterator[str]:
        """Tell what a resume does otherwise that is not the handler's doing."""
        usual = self._usual
        if self._difference is not None and usual:
            yield (
                f"resuming from {self.left.path} differs in {_names(self._difference)}, as it does from {usual[0].path}: see "
                "ckpt_resumable"
            )
        if self._run is not None and "data" in _keys(self._compare(self._run, self.after, data=True)):
            yield f"resuming from {self.left.path} does not go on with the batch of step {self.after + 1}: see ckpt_resumable"

    # -- the resume from what the handler saved ----------------------------------------------------------------------

    @property
    def _run(self) -> RunRecord | None:
        return self.evidence.of(resume_after_error(self.left.identity, after=self.after))

    @property
    def _failure(self) -> Finding | None:
        return None if self._run is None else explain_resuming.failure(self._run, self.left, self.evidence)

    @property
    def _difference(self) -> StepDifference | str | None:
        return None if self._run is None else self._compare(self._run, self.after)

    @property
    def _own_difference(self) -> StepDifference | str | None:
        """Return how it differs where another checkpoint does not, `count` for the number of its steps only."""
        found, usual = self._difference, self._usual_difference
        if found is None or isinstance(found, str):
            return None if found is None or isinstance(usual, str) else found
        keys = {name: keys for name, keys in found.keys.items() if name not in _keys(usual)}
        return replace(found, keys=keys) if keys else None

    def _compare(self, run: RunRecord, after: int, *, data: bool = False) -> StepDifference | str | None:
        baseline = self.evidence.baseline
        found = Trajectory.of(baseline).first_difference(run.steps[:1], after, "data" if data else "state")
        if found is not None:
            return found
        return "count" if run.outcome.ok and len(run.steps) != baseline.last_step - after else None

    # -- the resume from another checkpoint --------------------------------------------------------------------------

    @property
    def _usual(self) -> tuple[Checkpoint, ...]:
        """Return the last checkpoint of the undisturbed run that steps follow, if there is one."""
        return earlier(self.evidence.baseline)[-1:]

    @property
    def _usual_failure(self) -> Finding | None:
        runs = [(checkpoint, self.evidence.of(resume(checkpoint.identity))) for checkpoint in self._usual]
        found = (
            explain_resuming.failure(run, checkpoint, self.evidence) for checkpoint, run in runs if run is not None
        )
        return next((failure for failure in found if failure is not None), None)

    @property
    def _usual_difference(self) -> StepDifference | str | None:
        for checkpoint in self._usual:
            run = self.evidence.of(resume(checkpoint.identity))
            if run is not None:
                return self._compare(run, self.evidence.baseline.step_of(checkpoint))
        return None


def _keys(found: StepDifference | str | None) -> frozenset[str]:
    return frozenset(found.keys) if isinstance(found, StepDifference) else frozenset()


def _names(found: StepDifference | str) -> str:
    return "the number of steps" if isinstance(found, str) else ", ".join(found.keys)
