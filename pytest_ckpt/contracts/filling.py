"""The contract that a full disk, or one that fails, costs a job no more than the save that it meets."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_crashing, explain_filling, explain_latest
from pytest_ckpt.contracts.arguments import check_flags, check_most
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.explain_saving import no_steps
from pytest_ckpt.contracts.fault_choice import chosen
from pytest_ckpt.contracts.faulted import Faulted
from pytest_ckpt.contracts.restarts import Choice, Restarted
from pytest_ckpt.contracts.save_calls import whole
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import TRACED, Experiment, faulty, restart, restart_in_what_is_left
from pytest_ckpt.records.fault import ERRORS, ErrorName
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.crash_scenes import Saved
    from pytest_ckpt.records.fault import Fault
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class DiskFull(OnRequest):
    """A save that meets a full or failing disk ends the job with an error, or is told of; the checkpoint before stays whole.

    And a restart goes on from the newest whole one. With `fall_back=False` it may also refuse with an error. `errors` are
    those that are tried, of ENOSPC, EDQUOT and EIO, at no more than `most` calls of the second save.
    """

    name: ClassVar[str] = "disk_full"
    _: KW_ONLY
    errors: tuple[ErrorName, ...] = ERRORS
    fall_back: bool = True
    most: int = 12

    def __post_init__(self) -> None:
        given: object = self.errors
        if not isinstance(given, (tuple, list)) or not given or any(one not in ERRORS for one in given):
            message = f"errors must be some of {', '.join(ERRORS)}; got {given!r}"
            raise InvalidArgument(message)
        object.__setattr__(self, "errors", tuple(given))
        check_flags(fall_back=self.fall_back)
        check_most(self.most, "calls")

    # -- which experiments -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Trace the job, repeat it with one call after the other failing, and restart it in what that leaves."""
        if not evidence.baseline.last_step:
            return
        yield TRACED
        if evidence.of(TRACED) is None:
            return
        for fault in self._faults(evidence):
            yield faulty(fault)  # one by one: after one that hangs no other is tried
            run = evidence.of(faulty(fault))
            if run is None or run.outcome.status == "hung":
                break
        faulted = self._faulted(evidence)
        if len(faulted) < len(self._faults(evidence)) and not any(one.ending == "hung" for one in faulted.values()):
            return
        yield from _intact(evidence, whole(evidence.runs[TRACED], evidence.advisor)[:1])
        if _does_restart(evidence):
            yield from self._restarts(evidence, faulted)

    def _restarts(self, evidence: Evidence, faulted: Mapping[Fault, Faulted]) -> Iterator[Experiment]:
        for fault, found in faulted.items():
            if _alike(found, faulted) == fault and found.choice.step < evidence.baseline.last_step:
                yield restart_in_what_is_left(faulty(fault))
                yield from _intact(evidence, found.left[-1:])

    def _faults(self, evidence: Evidence) -> tuple[Fault, ...]:
        traced = evidence.runs[TRACED]
        if traced.trace is None or traced.trace.doubt or not traced.outcome.ok:
            return ()
        return chosen(traced, evidence.advisor, self.errors, self.most)

    def _faulted(self, evidence: Evidence) -> dict[Fault, Faulted]:
        """Return the runs in which calls failed, as far as they were made and came to such calls."""
        runs = {fault: evidence.of(faulty(fault)) for fault in self._faults(evidence)}
        traced = evidence.runs[TRACED]
        return {
            fault: Faulted(run=run, undisturbed=traced, advisor=evidence.advisor)
            for fault, run in runs.items()
            if run is not None
        }

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Tell which errors are swallowed, what they cost, and what a restart makes of it."""
        traced = evidence.of(TRACED)
        if traced is None:
            return inconclusive(self.name, no_steps())
        if traced.trace is None or traced.trace.unsupported:
            return not_applicable(self.name, "" if traced.trace is None else traced.trace.unsupported)
        if not traced.outcome.ok or traced.trace.doubt:
            return inconclusive(self.name, explain_filling.not_traced(traced))
        faulted = self._faulted(evidence)
        if not faulted:
            return inconclusive(self.name, explain_filling.nothing_to_fail(traced, evidence.advisor))
        met = {fault: found for fault, found in faulted.items() if found.refused is not None}
        restarted = dict(self._restarted(evidence, met))
        wrong = [(met[fault], found) for fault, found in restarted.items() if self._is_wrong(met[fault], found)]
        findings = [
            *explain_filling.endings(list(met.values())),
            *explain_filling.losses(list(met.values())),
            *explain_filling.restarts(wrong, len(restarted)),
        ]
        if findings:
            return violated(self.name, *findings)
        undecided = self._undecided(evidence, len(faulted) - len(met), list(met.values()))
        return undecided or held(self.name, explain_filling.holds(list(met.values()), list(restarted.values())))

    def _undecided(self, evidence: Evidence, unmet: int, met: list[Faulted]) -> Verdict | None:
        """Return why it can't be said that all is well."""
        if unmet:
            return inconclusive(self.name, explain_filling.other_calls(unmet, unmet + len(met)))
        doubtful = next((one for one in met if one.run.trace is not None and one.run.trace.doubt), None)
        if doubtful is not None:
            return inconclusive(self.name, explain_filling.not_traced(doubtful.run))
        first = next(iter(whole(evidence.runs[TRACED], evidence.advisor)), None)
        experiment = next(_intact(evidence, () if first is None else (first,)), None)
        run = None if experiment is None else evidence.of(experiment)
        if first is None or run is None or _does_restart(evidence):
            return None
        found = Restarted.of(run, Choice(step=first.step), evidence.baseline)
        if found.way in {"scratch", "idle"} and "restarting" not in run.asked:
            return inconclusive(self.name, explain_latest.does_not_search(first.checkpoint))
        return inconclusive(self.name, explain_crashing.not_from_intact(found, first.checkpoint, first.step))

    def _restarted(self, evidence: Evidence, met: Mapping[Fault, Faulted]) -> Iterator[tuple[Fault, Restarted]]:
        """Yield what restarts did, once for runs that have left the same."""
        for fault, found in met.items():
            run = evidence.of(restart_in_what_is_left(faulty(fault)))
            if run is not None:
                experiment = next(_intact(evidence, found.left[-1:]), None)
                intact = None if experiment is None else evidence.of(experiment)
                yield fault, Restarted.of(run, found.choice, evidence.baseline, intact)

    def _is_wrong(self, faulted: Faulted, found: Restarted) -> bool:
        """Say whether a restart did what it must not do, given what was there."""
        there = faulted.before is not None and faulted.choice.step > 0
        return {
            "newest": found.difference is not None,
            "older": faulted.before is not None and (found.step or 0) < faulted.before.step,
            "scratch": there,
            "refused": there and self.fall_back,
            "idle": True,
            "elsewhere": True,
        }[found.way]


def _alike(found: Faulted, faulted: Mapping[Fault, Faulted]) -> Fault:
    """Return the first fault that leaves the same."""
    return next(fault for fault, other in faulted.items() if other.key == found.key)


def _intact(evidence: Evidence, saved: Iterable[Saved]) -> Iterator[Experiment]:
    """Yield the restart from what the undisturbed run had when it had saved those steps, if steps follow."""
    for one in saved:
        baseline = evidence.baseline
        for other in whole(baseline, evidence.advisor):
            if other.step == one.step < baseline.last_step:
                yield restart(other.checkpoint.identity)
                break


def _does_restart(evidence: Evidence) -> bool:
    """Say whether the job finds its first checkpoint where nothing is in its way; where it has none before the end, it may."""
    first = whole(evidence.runs[TRACED], evidence.advisor)[:1]
    experiment = next(_intact(evidence, first), None)
    run: RunRecord | None = None if experiment is None else evidence.of(experiment)
    if experiment is None:
        return True
    return run is not None and Restarted.of(run, Choice(step=first[0].step), evidence.baseline).way == "newest"
