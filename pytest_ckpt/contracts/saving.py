"""Contracts on what is saved: the last step, and how many checkpoints remain."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_saving
from pytest_ckpt.contracts.base import Contract, Evidence, OfBaseline, OfSchedule, promised, recognised
from pytest_ckpt.contracts.explain_saving import (
    checkpoints_text,
    is_unrecognised,
    listing,
    no_steps,
    nothing_recognised,
)
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import Advice, Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class FinalStep(OfBaseline, OfSchedule):
    """The last optimizer step is on disk when training ends; with `weights_only`, an export of the model is enough."""

    name: ClassVar[str] = "final_step"
    _: KW_ONLY
    weights_only: bool = False

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it."""
        return cls()

    def judge(self, evidence: Evidence) -> Verdict:
        """Look for the state after the last step among the checkpoints that remain."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        holding = holding_last(run, weights_only=self.weights_only)
        if holding and run.unsaved:
            advice = evidence.advisor.component("returned", holding[-1])
            return violated(self.name, explain_saving.returned_unsaved(run, advice))
        if holding:
            return held(self.name, f"step {run.last_step}, the last one, is on disk in {holding[-1].path}")
        unclear = [c for c in run.kept if not c.foreign and self._may_hold_last(c, run)]
        if unclear:
            return inconclusive(self.name, explain_saving.unclear(unclear[-1], run))
        if is_unrecognised(run):
            return inconclusive(self.name, nothing_recognised(run))
        return violated(self.name, explain_saving.missing_final(run, evidence.advisor.missing_final()))

    def _may_hold_last(self, checkpoint: Checkpoint, run: RunRecord) -> bool:
        """Say whether a checkpoint was saved for the last step and nothing is known of its content."""
        known = checkpoint.content is not None and checkpoint.content.matched > 0
        return not known and not checkpoint.problem and run.step_of(checkpoint) == run.last_step


def holding_last(run: RunRecord, *, weights_only: bool = False) -> tuple[Checkpoint, ...]:
    """Return the checkpoints on disk in the end that hold the last step and can continue training, as far as others can."""

    def holds(checkpoint: Checkpoint) -> bool:
        if checkpoint.foreign or checkpoint.content is None or run.last_step not in checkpoint.content.steps:
            return False
        continues = checkpoint.kind == "full" or all(other.kind != "full" for other in run.written)
        return not checkpoint.content.missing and (weights_only or continues)

    return tuple(checkpoint for checkpoint in run.kept if holds(checkpoint))


@dataclass(frozen=True)
class Count(OfBaseline, OfSchedule):
    """Exactly `n` checkpoints are on disk when training ends."""

    name: ClassVar[str] = "count"
    n: int | None

    def __post_init__(self) -> None:
        given: object = self.n
        if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 0):
            message = f"n must be a whole number of checkpoints, 0 or more; got {self.n!r}"
            raise InvalidArgument(message)

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it: the number follows from the framework's configuration."""
        return cls(None)

    def judge(self, evidence: Evidence) -> Verdict:
        """Count the checkpoints that remain, older ones of another run included."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        expected = self.n if self.n is not None else evidence.advisor.expected_count()
        if expected is None:
            return not_applicable(
                self.name, "how many checkpoints should remain does not follow from the configuration"
            )
        counted = promised(run) if self.n is not None else recognised(run)
        found = [checkpoint for checkpoint in counted if checkpoint.kept]
        if expected and is_unrecognised(run):
            return inconclusive(self.name, nothing_recognised(run))
        names = listing(checkpoint.path for checkpoint in found) or "none"
        if len(found) == expected:
            return held(self.name, f"{checkpoints_text(expected)} on disk: {names}")
        advice = evidence.advisor.component(self.name, found[-1]) if len(run.written) < expected and found else Advice()
        return violated(self.name, explain_saving.wrong_count(expected, found, run, names, advice))
