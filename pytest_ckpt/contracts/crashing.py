"""The contract that a job which is killed, at any moment, starts again from what it had saved."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_crashing, explain_latest
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.crash_choice import chosen
from pytest_ckpt.contracts.crash_scenes import CrashScene, crash_scenes
from pytest_ckpt.contracts.restarts import Restarted
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import TRACED, Experiment, restart_after_crash
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class CrashSafe(OnRequest):
    """Killed at any moment, the job starts again from its newest whole checkpoint; after the first save there is always one.

    With `fall_back=False`, a restart may also refuse with an error where the newest checkpoint is not whole. Of more
    than `most` states in which a kill can leave the directory, so many are tried.
    """

    name: ClassVar[str] = "crash_safe"
    _: KW_ONLY
    fall_back: bool = True
    most: int = 400

    def __post_init__(self) -> None:
        given: object = self.fall_back
        if not isinstance(given, bool):
            message = f"fall_back must be True or False; got {given!r}"
            raise InvalidArgument(message)
        number: object = self.most
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            message = f"most must be a whole number of states, at least 1; got {number!r}"
            raise InvalidArgument(message)

    # -- which experiments -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Trace the job, restart it where all that was saved is whole, and, where that goes well, in every other state."""
        yield TRACED
        traced = evidence.of(TRACED)
        intact = None if traced is None else _intact(traced, evidence)
        if traced is None or intact is None:
            return
        yield restart_after_crash(intact.number)
        run = evidence.of(restart_after_crash(intact.number))
        if run is not None and Restarted.of(run, intact, evidence.baseline).way == "newest":
            yield from (restart_after_crash(number) for number in chosen(traced.trace, self.most))

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Tell in which states a restart loses what was saved."""
        traced = evidence.runs[TRACED]
        trace = traced.trace
        if trace is None or trace.unsupported:
            return not_applicable(self.name, "" if trace is None else trace.unsupported)
        if not traced.outcome.ok or trace.doubt:
            return inconclusive(self.name, explain_crashing.not_traced(traced))
        intact = _intact(traced, evidence)
        if intact is None or intact.newest is None:
            return inconclusive(self.name, explain_latest.nothing_to_find(evidence.baseline))
        run = evidence.runs[restart_after_crash(intact.number)]
        found = Restarted.of(run, intact, evidence.baseline)
        if found.way in {"scratch", "idle"} and "restarting" not in run.asked:
            return inconclusive(self.name, explain_latest.does_not_search(intact.newest))
        if found.way != "newest":
            return inconclusive(self.name, explain_crashing.not_from_intact(found, intact.newest, intact.step))
        return self._of_states(evidence, traced)

    def _of_states(self, evidence: Evidence, traced: RunRecord) -> Verdict:
        scenes = crash_scenes(traced, evidence.advisor)
        tried = list(self._tried(evidence, scenes))
        gaps = [scene for scene in scenes if scene.is_gap]
        wrong = [(scene, found) for scene, found in tried if self._is_wrong(scene, found, traced.last_step)]
        findings = [
            *explain_crashing.gaps(gaps, traced),
            *explain_crashing.restarts(wrong, len(tried), traced),
        ]
        if findings:
            return violated(self.name, *findings, notes=explain_crashing.left_out(len(tried), len(scenes)))
        return held(self.name, explain_crashing.holds(tried), *explain_crashing.left_out(len(tried), len(scenes)))

    def _tried(self, evidence: Evidence, scenes: tuple[CrashScene, ...]) -> Iterator[tuple[CrashScene, Restarted]]:
        """Yield the states in which the job was started again, and what it did."""
        for scene in scenes:
            run = evidence.of(restart_after_crash(scene.number))
            if run is not None:
                clean = next((other for other in scenes if other.step == scene.step and other.is_clean), None)
                intact = None if clean is None else evidence.of(restart_after_crash(clean.number))
                yield scene, Restarted.of(run, scene, evidence.baseline, intact)

    def _is_wrong(self, scene: CrashScene, found: Restarted, last_step: int) -> bool:
        """Say whether a restart did what it must not do, given what was there."""
        return {
            "newest": found.difference is not None,
            "older": found.step is not None and found.step < scene.certain,
            "scratch": scene.certain > 0,
            "refused": scene.certain > 0 and (self.fall_back or scene.lasts),
            # where nothing was left to train; ckpt_latest says what a finished run must not do
            "idle": scene.step < last_step,
            "elsewhere": scene.step < last_step,
        }[found.way]


def _intact(traced: RunRecord, evidence: Evidence) -> CrashScene | None:
    """Return the state in which a save had just ended, the last that steps follow."""
    clean = [scene for scene in crash_scenes(traced, evidence.advisor) if scene.is_clean]
    fitting = [scene for scene in clean if 0 < scene.step < traced.last_step]
    return max(fitting, key=lambda scene: scene.step, default=None)
