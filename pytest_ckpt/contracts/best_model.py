"""The contract that what a framework calls its best checkpoint is the best that was saved, is there, and is what was loaded."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pytest_ckpt.contracts import declared_best
from pytest_ckpt.contracts.base import Contract, Evidence, OfBaseline, OfSchedule, promised
from pytest_ckpt.contracts.explain_saving import no_steps, steps_text
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ckpt.records.run import BestModel, RunRecord


@dataclass(frozen=True)
class Best(OfBaseline, OfSchedule):
    """The best checkpoint is the best that was saved, is on disk, and is what a framework loads in the end.

    `metric` and `mode` ("min" or "max") say by what it has to be chosen; without them the framework's own settings count. A
    job without a framework declares the metric with `ckpt_job.score(value)`; `path` names its best checkpoint, as a glob,
    where that is not the one with `best` in its name.
    """

    name: ClassVar[str] = "best"
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    _: KW_ONLY
    path: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in {None, "min", "max"}:
            message = f"mode must be 'min' where a low value is good, or 'max'; got {self.mode!r}"
            raise InvalidArgument(message)
        for name in ("metric", "path"):
            given: object = getattr(self, name)
            if given is not None and not (isinstance(given, str) and given):
                message = f"{name} must be a text that is not empty; got {given!r}"
                raise InvalidArgument(message)

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it."""
        return cls()

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare what the framework recorded as the best with the scores of the steps that were saved."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        told = [facts.best for facts in run.frameworks if facts.best is not None]
        if run.scores and not told:
            return declared_best.verdict(self.name, run, self.mode, self.path)
        if not told or not told[-1].scores:
            return not_applicable(self.name, "no metric was evaluated by which a best checkpoint is chosen")
        if self._is_other(told[-1]):
            return violated(self.name, self._other_choice(told[-1]))
        return _Choice.of(told[-1], run).verdict(self.name)

    def _is_other(self, best: BestModel) -> bool:
        """Say whether a framework chooses by another metric, or in the other direction."""
        metric = (self.metric or best.metric).removeprefix("eval_")
        return metric != best.metric.removeprefix("eval_") or (self.mode or best.mode) != best.mode

    def _other_choice(self, best: BestModel) -> Finding:
        asked = f"{self.metric or best.metric} ({self.mode or best.mode})"
        return Finding(
            title=f"the best checkpoint is chosen by {best.metric} ({best.mode}), and {asked} is asked for",
            cause="the settings of the framework name another metric, or another direction.",
            fix="set metric_for_best_model and greater_is_better (transformers), or monitor and mode (Lightning), to what is "
            "meant.",
            component="best",
            checkpoint=best.path or "",
        )


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was chosen, and what there was to choose from.

    Attributes:
        scores: by the number of steps done.
        saved: the steps of them after which a checkpoint was saved.
        chosen: the step of the checkpoint that was recorded as the best.
    """

    best: BestModel
    run: RunRecord
    scores: Mapping[int, float]
    saved: tuple[int, ...]
    chosen: int | None

    @classmethod
    def of(cls, best: BestModel, run: RunRecord) -> _Choice:
        numbered = {run.index_of(number, by=run.last_step): score for number, score in best.scores.items()}
        scores = {step: score for step, score in numbered.items() if step is not None}
        own = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
        steps = {run.step_of(checkpoint) for checkpoint in own}
        named = [run.step_of(checkpoint) for checkpoint in run.written if checkpoint.path == best.path]
        return cls(best, run, scores, tuple(sorted(steps & scores.keys())), named[-1] if named else None)

    def verdict(self, name: str) -> Verdict:
        usable = [step for step in self.saved if not math.isnan(self.scores[step])]
        if all(math.isnan(score) for score in self.scores.values()):
            return violated(name, self._all_nan())
        if not usable and self.best.path is None:
            return violated(name, self._nothing_to_load()) if self.best.loads else self._nothing_to_choose(name)
        findings = [found for found in (self._wrong(usable), self._gone(), self._not_loaded()) if found is not None]
        if findings:
            return violated(name, *findings)
        if self.chosen is None or not usable:
            return self._nothing_to_choose(name)
        loaded = ", and is what is in memory at the end" if self.best.loads else ""
        what = f"{self.best.path}, {self._score(self.chosen)} of step {self.chosen}"
        return held(name, f"{what}, is the best of the saved steps {', '.join(map(str, usable))}{loaded}")

    def _nothing_to_choose(self, name: str) -> Verdict:
        return not_applicable(
            name, f"no checkpoint is recorded as the best by {self.best.metric}, and none was to be loaded"
        )

    def _score(self, step: int) -> str:
        return f"{self.best.metric} {self.scores[step]:.4g}"

    def _optimum(self, usable: list[int]) -> int:
        choose = max if self.best.mode == "max" else min
        return choose(usable, key=lambda step: self.scores[step])

    def _rows(self) -> tuple[tuple[str, ...], ...]:
        scores = ", ".join(f"{score:.4g} at {step}" for step, score in sorted(self.scores.items())[:8])
        more = f" and {len(self.scores) - 8} more" if len(self.scores) > 8 else ""  # noqa: PLR2004 - a line of them
        return (
            ("scores", f"{self.best.metric} ({self.best.mode}) {scores}{more}"),
            ("saved", steps_text(self.run.saved_steps)),
            ("recorded", f"{self.best.path or 'none'}"),
        )

    def _finding(self, title: str, cause: str, fix: str, step: int | None = None) -> Finding:
        return Finding(
            title=title,
            rows=self._rows(),
            cause=cause,
            fix=fix,
            step=step,
            component="best",
            checkpoint=self.best.path or "",
        )

    def _wrong(self, usable: list[int]) -> Finding | None:
        """Return that another saved step has a better score, or that none was chosen though it was to be loaded."""
        if not usable or (self.best.path is None and not self.best.loads):
            return None
        optimum = self._optimum(usable)
        if self.best.path is None:
            return self._finding(
                f"no best checkpoint is recorded, and step {optimum} was saved with {self._score(optimum)}",
                "the best evaluation was at a step that was not saved, and no saved one took its place.",
                "save at every evaluation, such as save_steps equal to eval_steps.",
                optimum,
            )
        if self.chosen is None or self.scores.get(self.chosen, math.nan) == self.scores[optimum]:
            return None
        own = self._score(self.chosen) if self.chosen in self.scores else f"no {self.best.metric}"
        return self._finding(
            f"{self.best.path} is recorded as the best with {own}, and step {optimum} was saved with {self._score(optimum)}",
            "the record of the best is only renewed by an evaluation that beats all before it, whether that step was saved or "
            "not.",
            "save at every evaluation, such as save_steps equal to eval_steps.",
            optimum,
        )

    def _gone(self) -> Finding | None:
        path, tree = self.best.path, self.run.looks[-1].tree if self.run.looks else None
        if path is None or tree is None or path.startswith("/") or path in tree:
            return None
        return self._finding(
            f"{path} is recorded as the best and is not on disk when training ends",
            "the limit on kept checkpoints removed it, or it was never saved.",
            "keep the best beside the newest.",
        )

    def _not_loaded(self) -> Finding | None:
        """Return that the weights at the end are not those of the checkpoint that should have been loaded."""
        if not self.best.loads or self.chosen is None or self.chosen < 1:
            return None
        expected = self.run.steps[self.chosen - 1].state.get("update", {})
        found = self.run.last_weights
        other = [key for key in expected if key in found and found[key].differs_from(expected[key])]
        if not other:
            return None
        return self._finding(
            f"when training has ended {len(other)} of {len(expected)} parameters are not those of {self.best.path}, "
            "the best checkpoint, which was to be loaded",
            "the load was skipped or failed quietly, or something changed the weights after it.",
            "load the best checkpoint by hand after training, or look for the warning of the framework.",
            self.chosen,
        )

    def _all_nan(self) -> Finding:
        return self._finding(
            f"{self.best.metric} was NaN at all {len(self.scores)} evaluations, so no checkpoint is the best",
            "the evaluation, or training before it, diverged, and nothing was said.",
            "look at the first evaluation; raise where a metric is NaN.",
        )

    def _nothing_to_load(self) -> Finding:
        return self._finding(
            f"the best model was to be loaded at the end, and none of the evaluated steps, {steps_text(self.scores)}, was saved",
            "evaluations and saves do not meet, so nothing was loaded: the last weights are in memory.",
            "save at every evaluation, such as save_steps equal to eval_steps.",
        )
