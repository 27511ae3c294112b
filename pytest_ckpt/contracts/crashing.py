"""The contracts that a job which is killed, or loses its power, at any moment starts again from what it had saved."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_crashing, explain_latest
from pytest_ckpt.contracts.arguments import check_flags, check_most
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.crash_choice import chosen
from pytest_ckpt.contracts.crash_scenes import crash_scenes
from pytest_ckpt.contracts.explain_publishing import arrivals, without_restart
from pytest_ckpt.contracts.restarts import Choice, Restarted, own_of, went_on_from
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import TRACED, Experiment, restart_after_crash
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_ckpt.contracts.base import Advisor, Evidence
    from pytest_ckpt.contracts.crash_scenes import CrashScene
    from pytest_ckpt.contracts.crash_table import Broken
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Finding


@dataclass(frozen=True)
class _AfterCrash(OnRequest):
    """What both contracts have in common: the job is traced, and started again in the states that a crash can leave."""

    name: ClassVar[str]
    #: Whether it takes a power failure to leave the states that are looked at.
    by_power: ClassVar[bool]
    _: KW_ONLY
    fall_back: bool = True
    most: int = 100
    states: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_flags(fall_back=self.fall_back)
        check_most(self.most, "states")
        object.__setattr__(self, "states", _numbers(self.states))

    # -- which experiments -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Trace the job, restart it where all that was saved is whole, and, where that goes well, in the other states."""
        if not _has_something_to_lose(evidence.baseline):
            return
        yield TRACED
        traced = evidence.of(TRACED)
        scenes = () if traced is None else crash_scenes(traced, evidence.advisor)
        intact = None if traced is None else _intact(scenes, traced.last_step)
        if traced is None or traced.trace is None or intact is None:
            return
        yield restart_after_crash(intact.number)
        run = evidence.of(restart_after_crash(intact.number))
        if run is None or Restarted.of(run, intact, evidence.baseline).way != "newest":
            return
        concerned = self._concerned(scenes)
        gaps = [scene.number for scene in concerned if scene.is_gap]
        clean = [scene.number for scene in scenes if scene.is_clean and scene.step < traced.last_step]
        numbers = chosen(traced.trace, [scene.number for scene in concerned], self.most, urgent=gaps)
        yield from map(restart_after_crash, dict.fromkeys((*clean, *numbers)))

    def _concerned(self, scenes: Sequence[CrashScene]) -> list[CrashScene]:
        found = [scene for scene in scenes if scene.by_power == self.by_power]
        return [scene for scene in found if scene.number in self.states] if self.states else found

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Tell in which states a restart loses what was saved."""
        if not _has_something_to_lose(evidence.baseline):
            return inconclusive(self.name, explain_latest.nothing_to_find(evidence.baseline))
        traced = evidence.runs[TRACED]
        if traced.trace is None or traced.trace.unsupported:
            return not_applicable(self.name, "" if traced.trace is None else traced.trace.unsupported)
        if not traced.outcome.ok or traced.trace.doubt:
            return inconclusive(self.name, explain_crashing.not_traced(traced))
        return self._of_traced(evidence, traced)

    def _of_traced(self, evidence: Evidence, traced: RunRecord) -> Verdict:
        scenes = crash_scenes(traced, evidence.advisor)
        intact = _intact(scenes, traced.last_step)
        if intact is None or intact.newest is None:
            return inconclusive(self.name, explain_latest.nothing_to_find(evidence.baseline))
        run = evidence.runs[restart_after_crash(intact.number)]
        found = Restarted.of(run, intact, evidence.baseline)
        if found.way == "newest":
            return self._of_states(evidence, traced, scenes)
        gone = list(self._gaps(scenes, {}, traced, evidence.advisor))
        if gone:
            return violated(self.name, *gone)
        unasked = found.way in {"scratch", "idle"} and "restarting" not in run.asked
        undecided = (
            explain_latest.does_not_search(intact.newest)
            if unasked
            else explain_crashing.not_from_intact(found, intact.newest, intact.step)
        )
        rows = without_restart(traced, evidence.advisor, by_power=self.by_power)
        return inconclusive(self.name, replace(undecided, rows=tuple(rows)))

    def _gaps(
        self, scenes: Sequence[CrashScene], did: Mapping[int, Restarted], traced: RunRecord, advisor: Advisor
    ) -> Iterable[Finding]:
        """Tell where nothing is whole any more, and no restart goes on all the same, from what only the job knows to be whole.

        States that were not tried count where no restart was tried, or where none of those in such a state went on.
        """
        concerned = self._concerned(scenes)
        gaps = [(scene, did.get(scene.number)) for scene in concerned if scene.is_gap]
        tried = [(scene, found) for scene, found in gaps if found is not None]
        lost = [(scene, found) for scene, found in tried if found.way != "newest" or not found.step]
        counted: Sequence[Broken] = lost if did and len(lost) < max(len(tried), 1) else gaps
        return explain_crashing.gaps(counted, [scene.number for scene in concerned], traced, advisor)

    def _of_states(self, evidence: Evidence, traced: RunRecord, scenes: Sequence[CrashScene]) -> Verdict:
        concerned = self._concerned(scenes)
        if self.states and not concerned:
            return self._of_no_such_state(len(scenes))
        tried = list(_tried(evidence, concerned, scenes))
        if concerned and not tried:
            return inconclusive(self.name, explain_crashing.nothing_tried(len(concerned)))
        wrong = [(scene, found) for scene, found in tried if self._is_wrong(scene, found, traced.last_step)]
        did = {scene.number: found for scene, found in tried}
        findings = [
            *self._gaps(scenes, did, traced, evidence.advisor),
            *explain_crashing.restarts(wrong, list(did), traced, evidence.advisor),
        ]
        left_out = explain_crashing.left_out(self.name, len(tried), len(concerned))
        if findings:
            return violated(self.name, *findings, notes=left_out)
        moved = () if self.by_power else arrivals(traced, evidence.advisor)
        return held(self.name, explain_crashing.holds(tried, len(concerned), by_power=self.by_power), *left_out, *moved)

    def _of_no_such_state(self, known: int) -> Verdict:
        """Tell of states that are asked for by their numbers, and are none of this contract's."""
        if any(number < known for number in self.states):
            other = "kill" if self.by_power else "power failure"
            return not_applicable(self.name, f"it takes a {other} to leave the states that are asked for")
        return inconclusive(self.name, explain_crashing.no_such_state(self.states, known))

    def _is_wrong(self, scene: CrashScene, found: Restarted, last_step: int) -> bool:
        """Say whether a restart did what it must not do, given what was there."""
        something = scene.newest is not None and max(scene.certain, scene.had) > 0
        return {
            "newest": found.difference is not None,
            "older": found.step is not None and found.step < scene.certain,
            "scratch": something,
            "refused": something and (self.fall_back or scene.is_clean),
            # where nothing was left to train; ckpt_latest says what a finished run must not do
            "idle": not scene.ending,
            "elsewhere": scene.step < last_step,
        }[found.way]


@dataclass(frozen=True)
class CrashSafe(_AfterCrash):
    """Killed at any moment, the job starts again from its newest whole checkpoint; after the first save there is always one.

    With `fall_back=False`, a restart may also refuse with an error where what was being saved lies unfinished beside
    that. Of more than `most` states in which a kill can leave the directory, so many are tried; or only those whose numbers
    are given as `states`.
    """

    name: ClassVar[str] = "crash_safe"
    by_power: ClassVar[bool] = False


@dataclass(frozen=True)
class PowerSafe(_AfterCrash):
    """After a power failure, which loses what was not synced, the job starts again from its newest whole checkpoint.

    The arguments are those of `ckpt_crash_safe`, which this contract adds to: what a kill alone can leave is not tried
    again.
    """

    name: ClassVar[str] = "power_safe"
    by_power: ClassVar[bool] = True


def _numbers(given: object) -> tuple[int, ...]:
    """Return numbers of states as they can be compared and hashed."""
    if not isinstance(given, (tuple, list)) or not all(type(one) is int and one >= 0 for one in given):
        message = f"states must be numbers of crash states, as a failure names them; got {given!r}"
        raise InvalidArgument(message)
    return tuple(given)


def _has_something_to_lose(baseline: RunRecord) -> bool:
    """Say whether something is saved before the end."""
    return any(0 < baseline.step_of(checkpoint) < baseline.last_step for checkpoint in own_of(baseline))


def _tried(
    evidence: Evidence, concerned: Sequence[CrashScene], scenes: Sequence[CrashScene]
) -> Iterator[tuple[CrashScene, Restarted]]:
    """Yield the states in which the job was started again, and what it did."""
    clean = {scene.step: restart_after_crash(scene.number) for scene in reversed(scenes) if scene.is_clean}
    for scene in concerned:
        run = evidence.of(restart_after_crash(scene.number))
        if run is not None:
            step = max(went_on_from(run, evidence.baseline, clean), default=0)
            # What is not whole may have all that a restart needs: then it goes on as from the whole one.
            newest = max(step, scene.step)
            choice = Choice(step=newest, older=tuple(sorted(other for other in clean if 0 < other < newest)))
            intact = evidence.of(clean[choice.step]) if choice.step in clean else None
            yield scene, Restarted.of(run, choice, evidence.baseline, intact)


def _intact(scenes: Sequence[CrashScene], last_step: int) -> CrashScene | None:
    """Return the state that a save had left, the last that steps follow."""
    fitting = [scene for scene in scenes if scene.is_clean and 0 < scene.step < last_step]
    return max(fitting, key=lambda scene: scene.step, default=None)
