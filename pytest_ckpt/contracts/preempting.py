"""The contract that a job which is told to leave saves what it has, leaves in time, and starts again from there."""

from __future__ import annotations

import signal as signals
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from pytest_ckpt.contracts import explain_crashing, explain_latest, explain_preempting
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps
from pytest_ckpt.contracts.preempted import Preempted
from pytest_ckpt.contracts.restarts import Choice, Restarted
from pytest_ckpt.contracts.save_calls import SaveCalls, whole
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import TRACED, Experiment, restart, restart_in_what_is_left, struck
from pytest_ckpt.records.strike import PHASES, Phase, Strike
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.verdict import Finding

#: A job has to have steps left after the signal, so that one that passes it over can be told from one that leaves.
_LEFT: Final = 3
#: Seconds that the steps after the signal take together, if there are any.
_TIME: Final = 5.0
_NO_HANDLER: Final = frozenset({"SIGKILL", "SIGSTOP"})


@dataclass(frozen=True)
class Preemptible(OnRequest):
    """At a signal, whatever it is doing, the job saves its last finished step, leaves within `grace` seconds, and restarts there.

    With `exit_code` it has to leave with that one; 128 and more stands for the signal itself. `phases` are when the signal
    comes, of forward, accumulation, step, evaluation, loader and save: all that the job has by default.
    """

    name: ClassVar[str] = "preemptible"
    signal: str = "SIGTERM"
    _: KW_ONLY
    grace: float = 30.0
    exit_code: int | None = None
    phases: tuple[Phase, ...] | None = None

    def __post_init__(self) -> None:
        name: object = self.signal
        known = {one.name for one in signals.Signals} - _NO_HANDLER
        if name not in known:
            message = f"signal must be the name of one that can be handled, such as SIGTERM or SIGUSR1; got {name!r}"
            raise InvalidArgument(message)
        grace: object = self.grace
        if not isinstance(grace, (int, float)) or isinstance(grace, bool) or not 0 < grace < float("inf"):
            message = f"grace must be a number of seconds above 0; got {grace!r}"
            raise InvalidArgument(message)
        code: object = self.exit_code
        if code is not None and (not isinstance(code, int) or isinstance(code, bool) or not 0 <= code <= 255):  # noqa: PLR2004
            message = f"exit_code must be a whole number from 0 to 255, or None for any; got {code!r}"
            raise InvalidArgument(message)
        phases: object = self.phases
        if phases is not None:
            if not isinstance(phases, (tuple, list)) or not phases or any(one not in PHASES for one in phases):
                message = f"phases must be some of {', '.join(PHASES)}; got {phases!r}"
                raise InvalidArgument(message)
            object.__setattr__(self, "phases", tuple(phases))

    # -- which experiments -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Run the job once for each phase with a signal in it, and restart it in what that leaves."""
        if not whole(evidence.baseline, evidence.advisor) or evidence.baseline.last_step <= _LEFT:
            return
        if "save" in (self.phases or PHASES):
            yield TRACED
        yield from (struck(strike) for strike in self._strikes(evidence))
        usual = self._usual(evidence)
        if usual is not None:
            yield usual
        seen = set()
        for found in self._struck(evidence):
            if found.is_worth_a_restart and found.key not in seen:
                seen.add(found.key)
                yield restart_in_what_is_left(found.run.experiment)

    def _strikes(self, evidence: Evidence) -> Iterator[Strike]:
        last, saved = evidence.baseline.last_step, evidence.baseline.saved_steps
        between = [step for step in range(1, last - _LEFT + 1) if step not in saved]
        after = next((step for step in between if step > saved[0]), next(iter(between), 1))
        for phase in self.phases or PHASES:
            if phase == "save":
                yield from self._in_save(evidence)
            else:
                yield self._strike(phase, after, last)

    def _strike(self, phase: Phase, after: int, last: int) -> Strike:
        grace = float(self.grace)
        return Strike(signal=self.signal, phase=phase, after=after, grace=grace, last=last, time=min(_TIME, grace / 2))

    def _in_save(self, evidence: Evidence) -> Iterator[Strike]:
        """Yield the strike at the first write of the second save."""
        traced = evidence.of(TRACED)
        if traced is None or traced.trace is None or traced.trace.unsupported or traced.trace.doubt:
            return
        points = SaveCalls.of(traced, evidence.advisor).points
        steps = sorted({saved.step for saved in whole(traced, evidence.advisor)})[:2]
        for number, operation in [point for point in points if point[1].kind in {"write", "arrive"}][:1]:
            strike = self._strike("save", steps[-1], evidence.baseline.last_step)
            yield replace(strike, operation=number, kind=operation.kind)

    def _struck(self, evidence: Evidence) -> list[Preempted]:
        """Return the runs that came to the moment of their signal."""
        runs = [evidence.of(struck(strike)) for strike in self._strikes(evidence)]
        found = [Preempted(run=run, undisturbed=evidence.baseline, advisor=evidence.advisor) for run in runs if run]
        return [one for one in found if one.step is not None]

    def _usual(self, evidence: Evidence) -> Experiment | None:
        """Return the restart from the first checkpoint that was saved without a signal."""
        baseline = evidence.baseline
        for saved in whole(baseline, evidence.advisor):
            if saved.step < baseline.last_step:
                return restart(saved.checkpoint.identity)
        return None

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Tell in which phases a signal costs steps, is passed over, or leaves what nothing goes on from."""
        undecided = self._no_case(evidence)
        if undecided is not None:
            return inconclusive(self.name, undecided)
        met = self._struck(evidence)
        missed = [phase for phase in self.phases or PHASES if phase not in {one.phase for one in met}]
        if not met or (self.phases and missed):
            return inconclusive(self.name, explain_preempting.not_reached(missed))
        no_search = self._no_search(evidence)
        restarted = [] if no_search is not None else list(self._restarted(evidence, met))
        findings = [
            *explain_preempting.findings(met, self.grace, self.exit_code),
            *explain_preempting.restarts(restarted),
        ]
        if findings:
            return violated(self.name, *findings)
        if no_search is not None:
            return inconclusive(self.name, no_search)
        return held(self.name, explain_preempting.holds(met, self.signal), *explain_preempting.left_out(missed))

    def _no_case(self, evidence: Evidence) -> Finding | None:
        """Return why the job has nothing to lose by a signal."""
        baseline = evidence.baseline
        if not baseline.last_step:
            return no_steps()
        if not whole(baseline, evidence.advisor):
            return nothing_saved(baseline)
        return explain_preempting.too_short(baseline, _LEFT + 1) if baseline.last_step <= _LEFT else None

    def _no_search(self, evidence: Evidence) -> Finding | None:
        """Return why restarts say nothing: the job finds no checkpoint that was saved without a signal either."""
        usual = self._usual(evidence)
        run = None if usual is None else evidence.of(usual)
        if usual is None or usual.checkpoint is None or run is None:
            return None
        checkpoint = evidence.baseline.checkpoint(usual.checkpoint)
        step = evidence.baseline.step_of(checkpoint)
        found = Restarted.of(run, Choice(step=step), evidence.baseline)
        if found.way == "newest":
            return None
        if found.way in {"scratch", "idle"} and "restarting" not in run.asked:
            return explain_latest.does_not_search(checkpoint)
        return explain_crashing.not_from_intact(found, checkpoint, step)

    def _restarted(self, evidence: Evidence, met: Iterable[Preempted]) -> Iterator[tuple[Preempted, Restarted]]:
        """Yield what restarts did, once for runs that have left the same."""
        usual = self._usual(evidence)
        for one in met:
            run = evidence.of(restart_in_what_is_left(one.run.experiment))
            if run is not None:
                yield one, one.restarted(run, None if usual is None else evidence.of(usual))
