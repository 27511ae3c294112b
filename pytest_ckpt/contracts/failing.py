"""The contract that an error in training does not cost what was trained since the last save."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_failing, undecidable
from pytest_ckpt.contracts.base import OnRequest, promised
from pytest_ckpt.contracts.explain_saving import no_steps
from pytest_ckpt.contracts.handled import Handled
from pytest_ckpt.contracts.saving import holding_last
from pytest_ckpt.records.experiment import error
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class OnError(OnRequest):
    """An error in the midst of a step leaves a checkpoint of the last finished step that training goes on from.

    And it still ends the job as an error.
    """

    name: ClassVar[str] = "on_error"

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Run the job once more, with an error in a step after one that is not saved anyway; resume from what that leaves."""
        after = _step_between(evidence.baseline)
        if after is None:
            return
        yield error(after=after)
        run = evidence.of(error(after=after))
        left = None if run is None or run.last_step != after else _left(run)
        if left is not None:
            yield from Handled(evidence, left, after).plan()

    def judge(self, evidence: Evidence) -> Verdict:
        """Look for the last finished step in what the failed run has left, and at what a resume makes of it."""
        baseline = evidence.baseline
        if baseline.last_step == 0:
            return inconclusive(self.name, no_steps())
        after = _step_between(baseline)
        if after is None:
            return inconclusive(self.name, explain_failing.always_saved(baseline))
        run = evidence.of(error(after=after))
        if run is None or run.last_step != after:
            caught = run is not None and "error" in run.asked
            explain = explain_failing.went_on if caught else explain_failing.not_reached
            return inconclusive(self.name, explain(after, run))
        if run.outcome.status == "finished":
            return violated(self.name, explain_failing.swallowed(after))
        left = _left(run)
        if left is None:
            return violated(self.name, explain_failing.lost(after, run))
        return self._resumed(Handled(evidence, left, after))

    def _resumed(self, handled: Handled) -> Verdict:
        after, path = handled.after, handled.left.path
        if handled.ignores_resume_from:
            return inconclusive(self.name, undecidable.ignores_resume_from())
        undecided = handled.undecided()
        if undecided is not None:
            return inconclusive(self.name, undecided)
        broken = handled.broken()
        if broken is not None:
            return violated(self.name, broken)
        what = (
            f"an error in step {after + 1} leaves step {after} in {path}, from which training goes on, and ends the job"
        )
        return held(self.name, what, *handled.notes())


def _step_between(run: RunRecord) -> int | None:
    """Return the last step that is not saved and is followed by another: after it an error costs something."""
    saved = set(run.saved_steps)
    return max((step for step in range(1, run.last_step) if step not in saved), default=None)


def _left(run: RunRecord) -> Checkpoint | None:
    """Return the checkpoint of the last finished step; what was saved for it and holds something else shows in a resume."""
    return next(iter((*_first_promised(run, holding_last(run)), *_saved_in_handler(run))), None)


def _saved_in_handler(run: RunRecord) -> Iterator[Checkpoint]:
    for checkpoint in promised(run):
        own = checkpoint.kept and not checkpoint.foreign and not checkpoint.problem
        if own and checkpoint.kind != "weights" and run.step_of(checkpoint) == run.last_step:
            yield checkpoint


def _first_promised(run: RunRecord, found: Iterable[Checkpoint]) -> Iterator[Checkpoint]:
    """Yield the newest first, those that a resume may name before copies of them."""
    names = {checkpoint.identity for checkpoint in promised(run)}
    yield from sorted(found, key=lambda checkpoint: (checkpoint.identity not in names, -checkpoint.look))
