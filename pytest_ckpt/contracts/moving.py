"""The contract that a run's directory can be moved: what was saved is found wherever it lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_moving, explain_resuming, undecidable
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.explain_saving import no_steps
from pytest_ckpt.contracts.resumes import earlier, why_no_resume
from pytest_ckpt.contracts.trajectory import StepDifference, Trajectory
from pytest_ckpt.records.experiment import REPEAT, resume, resume_moved
from pytest_ckpt.records.state import keys_that_differ
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import BestModel, RunRecord
    from pytest_ckpt.records.verdict import Finding


@dataclass(frozen=True)
class Relocatable(OnRequest):
    """Moving the run's directory breaks nothing: a resume goes on alike, the best model is found, no pointer dangles."""

    name: ClassVar[str] = "relocatable"

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Resume from the last checkpoint that steps follow, where it was saved and elsewhere."""
        chosen = earlier(evidence.baseline)[-1:]
        for checkpoint in chosen:
            yield resume(checkpoint.identity)
            yield resume_moved(checkpoint.identity)
            pair = _Pair.of(evidence, checkpoint)
            if pair is not None and pair.differs:
                yield REPEAT

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the resume in the moved directory with the one in the old place, and look for absolute pointers."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        findings = list(_pointers(run))
        undecided = why_no_resume(evidence)
        pair = None if undecided is not None else _Pair.of(evidence, earlier(run)[-1])
        if pair is not None:
            found = pair.findings()
            undecided = pair.undecided(found)
            findings += found if undecided is None else []
        if findings:
            return violated(self.name, *findings)
        if undecided is not None:
            return inconclusive(self.name, undecided)
        start = run.step_of(earlier(run)[-1])
        return held(self.name, f"resuming from step {start} goes on alike where the directory has been moved")


def _pointers(run: RunRecord) -> Iterator[Finding]:
    """Yield the links that name something in the directory absolutely, and the files that so name a checkpoint."""
    links = {entry.path for entry in run.looks[-1].tree.entries if entry.kind == "link"} if run.looks else set()
    saved = {path for checkpoint in run.checkpoints for path in (checkpoint.path, *checkpoint.others)}
    for path, target in run.pointers.items():
        if path in links or any(target.endswith(f"/{own}") for own in saved):
            yield explain_moving.pointer(path, target, is_link=path in links)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One resume in two places."""

    evidence: Evidence
    checkpoint: Checkpoint
    there: RunRecord
    moved: RunRecord

    @classmethod
    def of(cls, evidence: Evidence, checkpoint: Checkpoint) -> _Pair | None:
        there, moved = (evidence.of(of(checkpoint.identity)) for of in (resume, resume_moved))
        return None if there is None or moved is None else cls(evidence, checkpoint, there, moved)

    def undecided(self, findings: Sequence[Finding]) -> Finding | None:
        """Return why nothing can be concluded: the resume is broken without a move, or something else explains it."""
        failed = self._failure(self.there)
        if failed is not None:
            return explain_moving.broken_already(failed)
        baseline = self.evidence.baseline
        start = baseline.step_of(self.checkpoint)
        found = Trajectory.of(baseline).first_difference(self.there.steps, start, "state")
        if found is not None and found.step == start + 1 and "weights" in found.keys:
            return explain_moving.broken_already(
                explain_resuming.difference(found, self.there, self.checkpoint, self.evidence)
            )
        if findings and self._stays():
            return explain_moving.still_there(findings[0], self.checkpoint)
        repeated = self.evidence.of(REPEAT)
        return None if repeated is None or not self.differs else _noise(repeated, baseline)

    def findings(self) -> list[Finding]:
        """Return what the move breaks."""
        failed = self._failure(self.moved)
        if failed is not None:
            return [explain_moving.failure(failed)]
        best, steps = self._best(), self._steps()
        weights = () if steps is not None else self._last_weights()
        found = []
        if steps is not None:
            found.append(explain_moving.steps(steps, self.checkpoint, self.there, self.moved, self.evidence))
        if best is not None:
            found.append(explain_moving.best(*best, self.checkpoint, self.evidence, other_weights=bool(weights)))
        elif weights:
            found.append(explain_moving.last_weights(weights, self.checkpoint, self.moved))
        return found

    @property
    def differs(self) -> bool:
        """Whether both ended well and trained other steps, or ended with other weights."""
        if self._failure(self.there) is not None or self._failure(self.moved) is not None:
            return False
        return self._steps() is not None or bool(self._last_weights())

    def _failure(self, run: RunRecord) -> Finding | None:
        return explain_resuming.failure(run, self.checkpoint, self.evidence)

    def _steps(self) -> StepDifference | str | None:
        """Return how the steps differ by more than the last bits, `count` for their number only."""
        expected = replace(Trajectory.of(self.evidence.baseline), run=self.there)
        found = expected.first_difference(self.moved.steps, 0, "exact")
        if found is not None:
            return None if found.is_rounding else found
        return "count" if len(self.moved.steps) != len(self.there.steps) else None

    def _last_weights(self) -> tuple[str, ...]:
        return _other_weights(self.there, self.moved)

    def _stays(self) -> bool:
        """Say whether the job, built with the old directory as text, went on writing there after the move."""
        own = {save.path for save in self.there.saves}
        return any(
            save.path.startswith("/") and any(save.path.endswith(f"/{path}") for path in own)
            for save in self.moved.saves
        )

    def _best(self) -> tuple[BestModel, BestModel] | None:
        """Return what the framework says of the best in both places, if it says another thing after the move."""
        there, moved = _best(self.there), _best(self.moved)
        if there is None or moved is None or there.path is None or there.path == moved.path:
            return None
        if moved.path is not None and any(f"{save.path}/".startswith(f"{moved.path}/") for save in self.moved.saves):
            return None if moved.path.endswith(f"/{there.path}") else (there, moved)  # written in the old place
        return there, moved


def _best(run: RunRecord) -> BestModel | None:
    return next((facts.best for facts in reversed(run.frameworks) if facts.best is not None), None)


def _other_weights(left: RunRecord, right: RunRecord) -> tuple[str, ...]:
    """Return the names of the weights that are known of both runs' ends and differ."""
    mine, theirs = left.last_weights, right.last_weights
    both = mine.keys() & theirs.keys()
    return keys_that_differ({key: mine[key] for key in both}, {key: theirs[key] for key in both})


def _noise(repeated: RunRecord, baseline: RunRecord) -> Finding | None:
    """Return that the job differs from itself, moved or not."""
    found = Trajectory.of(baseline).first_difference(repeated.steps, 0, "exact")
    same = found is None and len(repeated.steps) == baseline.last_step and not _other_weights(baseline, repeated)
    return None if same else undecidable.not_reproducible(found, repeated, baseline)
