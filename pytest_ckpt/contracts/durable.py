"""The contract that a save in the background holds what was there when it was asked for, and is whole when the job ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_durable
from pytest_ckpt.contracts.background import held_back, slowness_for
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps
from pytest_ckpt.contracts.slowly_saved import slowly_saved
from pytest_ckpt.contracts.trajectory import Trajectory
from pytest_ckpt.contracts.vain_saves import in_vain
from pytest_ckpt.records.experiment import TRACED, Experiment, slowed
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.slowly_saved import SlowlySaved
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Finding


@dataclass(frozen=True)
class AsyncDurable(OnRequest):
    """What a thread or process saves is what was there when the save was asked for, and whole when the job ends.

    The job is run once more with a disk that is slow for all but the thread that trains.
    """

    name: ClassVar[str] = "async_durable"

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Trace the job, and repeat it with a slow disk where something is saved in the background."""
        if not evidence.baseline.last_step:
            return
        yield TRACED
        traced = evidence.of(TRACED)
        if traced is not None and traced.outcome.ok and (slowness := slowness_for(traced)) is not None:
            yield slowed(slowness)

    def judge(self, evidence: Evidence) -> Verdict:
        """Tell which saves are not there whole in the end, and which hold what came later."""
        if not evidence.baseline.last_step:
            return inconclusive(self.name, no_steps())
        traced = evidence.runs[TRACED]
        if traced.trace is None or traced.trace.unsupported:
            return not_applicable(self.name, "" if traced.trace is None else traced.trace.unsupported)
        slowness = slowness_for(traced) if traced.outcome.ok else None
        slow = None if slowness is None else evidence.of(slowed(slowness))
        return self._of_no_case(evidence.baseline, traced) if slow is None else self._of_slow(evidence, traced, slow)

    def _of_no_case(self, baseline: RunRecord, traced: RunRecord) -> Verdict:
        """Tell why nothing was looked at on a slow disk."""
        if not baseline.written:
            return inconclusive(self.name, nothing_saved(baseline))
        if not traced.outcome.ok or (traced.trace is not None and traced.trace.doubt):
            return inconclusive(self.name, explain_durable.not_traced(traced))
        return not_applicable(self.name, "all that is saved is written by the thread that trains")

    def _of_slow(self, evidence: Evidence, traced: RunRecord, slow: RunRecord) -> Verdict:
        baseline = evidence.baseline
        if slow.outcome.status == "hung":
            return inconclusive(self.name, explain_durable.not_ended(slow, traced))
        saved = slowly_saved(baseline, traced, slow, evidence.advisor)
        if not slow.outcome.ok:
            return violated(self.name, explain_durable.failed(slow))
        over = _passed_over(saved)
        there = [one for one in saved if not one.missing]
        lost = [one for one in saved if one.missing and one not in over]
        same = _is_same_training(baseline, slow)
        changed = [
            one for one in there if one.damage or one.is_late or (same and (one.other_tensors or one.other_files))
        ]
        vain = () if lost else in_vain(slow, traced, saved)
        findings = [
            *explain_durable.unfinished(lost, len(saved)),
            *explain_durable.come_to_nothing(vain, slow),
            *explain_durable.changed(changed, len(there)),
        ]
        if findings:
            return violated(self.name, *findings)
        undecided = _undecided(there, slow, same=same)
        if undecided is not None:
            return inconclusive(self.name, undecided)
        sentence = explain_durable.holds(there, len(held_back(slow)), slow)
        return held(self.name, sentence, *explain_durable.passed_over(over))


def _passed_over(saved: Sequence[SlowlySaved]) -> list[SlowlySaved]:
    """Return the saves that were not even begun, though later ones were: the job does not ask for one amid another."""
    whole = [one.asked for one in saved if not one.missing]
    return [one for one in saved if one.missing and not one.has_begun and one.asked < max(whole, default=0)]


def _is_same_training(baseline: RunRecord, slow: RunRecord) -> bool:
    """Say whether the job trained the same on a slow disk."""
    if slow.last_step != baseline.last_step:
        return False
    return Trajectory.of(baseline).first_difference(slow.steps, 0, "exact") is None


def _undecided(there: Sequence[SlowlySaved], slow: RunRecord, *, same: bool) -> Finding | None:
    """Return why it can't be said that all is well."""
    if not same:
        return explain_durable.trained_otherwise()
    if slow.trace is not None and slow.trace.doubt:
        return explain_durable.not_traced(slow)
    if not there:
        return explain_durable.nothing_kept()
    unclear = [one for one in there if not one.is_comparable]
    return explain_durable.not_comparable(unclear) if unclear else None
