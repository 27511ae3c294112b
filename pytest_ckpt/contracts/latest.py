"""The contract that a restart goes on from the newest whole checkpoint, or says that it can't."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_damage, explain_latest
from pytest_ckpt.contracts.arguments import check_flags
from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.restarts import Restarted, Scene
from pytest_ckpt.records.experiment import Damage, Experiment, restart
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt.contracts.base import Evidence


@dataclass(frozen=True)
class Latest(OnRequest):
    """A restart goes on from the newest whole checkpoint; a damaged one is skipped or refused, never used in silence.

    `damaged=False` leaves out the restarts in which a file of the newest checkpoint is missing or cut. With
    `fall_back=True`, refusing a damaged checkpoint while an older one is there breaks the promise, too; with `stale=True`,
    so does taking one with a higher number that another run has left.
    """

    name: ClassVar[str] = "latest"
    _: KW_ONLY
    damaged: bool = True
    fall_back: bool = False
    stale: bool = False

    def __post_init__(self) -> None:
        check_flags(damaged=self.damaged, fall_back=self.fall_back, stale=self.stale)

    # -- which experiments -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Restart the job as it was; where that goes on rightly, in damaged directories as well."""
        scene = Scene.of(evidence.baseline, evidence.advisor)
        if scene is None:
            return
        yield _intact(scene)
        run = evidence.of(_intact(scene))
        if run is None or scene.incomplete or Restarted.of(run, scene, evidence.baseline).way != "newest":
            return
        if evidence.baseline.asked_resume_from:
            yield _absent(scene)
        yield from (restart(scene.newest.identity, damage=damage) for damage in self._damages(scene))
        if scene.control is not None and _is_passed_over(scene.renamed, self._restarted(evidence, scene)):
            yield restart(scene.newest.identity, damage=scene.control)
        finished = Scene.of(evidence.baseline, evidence.advisor, finished=True)
        if finished is not None:
            yield _intact(finished)
        if _any_differs(self._restarted(evidence, scene)):
            yield _intact(scene, stop_after=2)  # whether the job restarts alike at all

    def _damages(self, scene: Scene) -> Iterator[Damage]:
        if self.damaged:
            yield from scene.damages()
        if self.stale and scene.stale is not None:
            yield scene.stale
        if scene.renamed is not None:
            yield scene.renamed

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Tell where each restart went on from."""
        scene = Scene.of(evidence.baseline, evidence.advisor)
        if scene is None:
            return inconclusive(self.name, explain_latest.nothing_to_find(evidence.baseline))
        run = evidence.runs[_intact(scene)]
        found = Restarted.of(run, scene, evidence.baseline)
        if found.way in {"scratch", "idle"} and "restarting" not in run.asked:
            return inconclusive(self.name, explain_latest.does_not_search(scene.newest))
        if scene.incomplete and (found.way == "newest" or (found.way == "refused" and not self.fall_back)):
            return held(self.name, explain_latest.passes_over(found, scene))
        if found.way != "newest":
            return violated(self.name, explain_latest.wrong_choice(found, scene, run, evidence.advisor))
        return self._of_damaged(evidence, scene)

    def _of_damaged(self, evidence: Evidence, scene: Scene) -> Verdict:
        """Judge the other restarts of a job that finds the newest checkpoint."""
        restarted = self._restarted(evidence, scene)
        if _any_differs(restarted) and _restarts_differ(evidence, scene):
            return inconclusive(self.name, explain_latest.restarts_differ(scene))
        findings = list(self._findings(evidence, scene, restarted))
        if findings:
            return violated(self.name, *findings)
        return held(self.name, explain_damage.holds(scene, restarted))

    def _restarted(self, evidence: Evidence, scene: Scene) -> dict[Damage, Restarted]:
        """Return what each restart in a damaged directory did, as far as they were made."""
        intact = evidence.of(_intact(scene))
        damages = (*self._damages(scene), *filter(None, [scene.control]))
        runs = {damage: evidence.of(restart(scene.newest.identity, damage=damage)) for damage in damages}
        return {
            damage: Restarted.of(run, scene, evidence.baseline, intact)
            for damage, run in runs.items()
            if run is not None
        }

    def _findings(self, evidence: Evidence, scene: Scene, restarted: dict[Damage, Restarted]) -> Iterator[Finding]:
        damaged = {damage: found for damage, found in restarted.items() if damage.kind in {"missing", "cut"}}
        yield from explain_damage.silent(damaged, scene, evidence.advisor)
        if self.fall_back and scene.older:
            yield from explain_damage.refusals(damaged, scene)
        for damage, found in restarted.items():
            if damage.kind == "stale" and found.way not in {"newest", "refused"}:
                yield explain_latest.took_stale(damage, found, scene)
        if scene.renamed is not None and _is_by_letters(scene, restarted):
            yield explain_latest.by_letters(scene.renamed, restarted[scene.renamed], scene)
        yield from self._others(evidence, scene)

    def _others(self, evidence: Evidence, scene: Scene) -> Iterator[Finding]:
        """Yield what is wrong with a path that is not there, and with a run that has ended."""
        absent = evidence.of(_absent(scene))
        if absent is not None and absent.outcome.ok and absent.asked_resume_from:
            yield explain_latest.path_ignored(Restarted.of(absent, scene, evidence.baseline), scene)
        finished = Scene.of(evidence.baseline, evidence.advisor, finished=True)
        run = None if finished is None else evidence.of(_intact(finished))
        if finished is not None and run is not None and run.outcome.ok and run.steps:
            advice = evidence.advisor.component("finished", finished.newest)
            yield explain_latest.trains_on(Restarted.of(run, finished, evidence.baseline), finished, advice)


def _intact(scene: Scene, stop_after: int = 1) -> Experiment:
    return restart(scene.newest.identity, stop_after=stop_after)


def _any_differs(restarted: Mapping[Damage, Restarted]) -> bool:
    return any(found.difference is not None for damage, found in restarted.items() if damage.kind != "renamed")


def _is_passed_over(damage: Damage | None, restarted: Mapping[Damage, Restarted]) -> bool:
    found = None if damage is None else restarted.get(damage)
    return found is not None and found.way == "older"


def _is_by_letters(scene: Scene, restarted: Mapping[Damage, Restarted]) -> bool:
    """Say whether a longer number is passed over, and only where its letters do not come last: no other reason is in it."""
    control = restarted.get(scene.control) if scene.control is not None else None
    return _is_passed_over(scene.renamed, restarted) and control is not None and control.way == "newest"


def _restarts_differ(evidence: Evidence, scene: Scene) -> bool:
    """Say whether the job does not restart twice in the same way, without damage."""
    again, first = evidence.of(_intact(scene, stop_after=2)), evidence.of(_intact(scene))
    return again is not None and Restarted.of(again, scene, evidence.baseline, first).difference is not None


def _absent(scene: Scene) -> Experiment:
    """Return the experiment that is told to resume from a checkpoint that is not there."""
    damage = Damage(kind="missing", path=scene.newest.path)
    return Experiment(kind="resume", checkpoint=scene.newest.identity, damage=damage, stop_after=1)
