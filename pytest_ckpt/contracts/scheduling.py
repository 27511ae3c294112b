"""The contract on when is saved: after which steps, and after each of them once."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_scheduling
from pytest_ckpt.contracts.arguments import check_flags
from pytest_ckpt.contracts.base import Contract, Evidence, OfBaseline, OfSchedule, promised, recognised, successive
from pytest_ckpt.contracts.explain_saving import is_unrecognised, no_steps, nothing_recognised, steps_text
from pytest_ckpt.contracts.repeated_saves import repeated
from pytest_ckpt.contracts.shelf import unseen
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class Steps(OfBaseline, OfSchedule):
    """Exactly these steps of the run are saved, each once, whatever is deleted again later.

    `steps` lists them. Or they are every `every` steps and the last one; `final=False` leaves the last one out. With neither
    they follow from the framework's configuration.
    """

    name: ClassVar[str] = "steps"
    steps: Sequence[int] | None = None
    _: KW_ONLY
    every: int | None = None
    final: bool | None = None

    def __post_init__(self) -> None:
        _check_steps(self.steps)
        every, final = _anything(self.every), _anything(self.final)
        if every is not None and not _is_count(every, least=1):
            message = f"every must be a whole number of steps, 1 or more; got {every!r}"
            raise InvalidArgument(message)
        if final is not None:
            check_flags(final=final)
        if self.steps is not None and every is not None:
            message = f"give either steps or every; got steps={self.steps!r} and every={every!r}"
            raise InvalidArgument(message)
        if final is not None and every is None:
            message = f"final says whether the last step belongs to every N steps; got final={final!r} without every"
            raise InvalidArgument(message)

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it: the steps follow from the framework's configuration."""
        return cls()

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the steps that were saved at any time with those that should be, both ways."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        expected = self._expected(evidence)
        if expected is None:
            return not_applicable(self.name, "which steps should be saved does not follow from the configuration")
        if expected and is_unrecognised(run):
            return inconclusive(self.name, nothing_recognised(run))
        missing, unexpected = self._compare(run, expected)
        findings = list(explain_scheduling.twice(repeated(run, self._counted(run))))
        if missing or unexpected:
            findings.insert(0, explain_scheduling.other_steps(expected, missing, unexpected, evidence))
        if findings:
            return violated(self.name, *findings)
        if not expected:
            return held(self.name, f"nothing was saved in {run.last_step} steps, as expected")
        return held(self.name, f"{steps_text(sorted(expected))} and no other {_were(expected)} saved, each once")

    def _expected(self, evidence: Evidence) -> frozenset[int] | None:
        if self.steps is not None:
            return frozenset(self.steps)
        if self.every is None:
            return evidence.advisor.promised_steps()
        last = evidence.baseline.last_step
        regular = frozenset(range(self.every, last + 1, self.every))
        return regular if self.final is False else regular | {last}

    def _is_derived(self) -> bool:
        return self.steps is None and self.every is None

    def _counted(self, run: RunRecord) -> tuple[str, ...]:
        """Return the identities of the checkpoints of this run that count: those that can continue training."""
        found = recognised(run) if self._is_derived() else promised(run)
        return tuple(checkpoint.identity for checkpoint in found if not checkpoint.foreign)

    def _compare(self, run: RunRecord, expected: Collection[int]) -> tuple[list[int], list[int]]:
        """Return the missing and the unexpected steps; a copy beside the others fills a gap, and is not unexpected."""
        counted = set(self._counted(run))
        found = [checkpoint for checkpoint in run.checkpoints if checkpoint.identity in counted]
        copies = [checkpoint for checkpoint in run.written if checkpoint.kind == "full"]
        saved = {run.step_of(checkpoint) for checkpoint in (*found, *copies, *unseen(run, found))}
        named = {run.step_of(checkpoint) for checkpoint in successive(run) if checkpoint.identity in counted}
        if self.steps is None:
            named.discard(0)  # a save before the first step is a multiple of any interval
        return sorted(set(expected) - saved), sorted(named - set(expected))


def _check_steps(steps: object) -> None:
    if steps is None:
        return
    if not isinstance(steps, (list, tuple, range, set, frozenset)) or not all(
        _is_count(step, least=0) for step in steps
    ):
        message = f"steps must list optimizer steps counted from 1, such as [4, 8]; got {steps!r}"
        raise InvalidArgument(message)
    if len(set(steps)) < len(steps):
        message = f"steps names a step more than once: {steps!r}"
        raise InvalidArgument(message)


def _anything(given: object) -> object:
    """Return what was given for an argument, whatever its annotation says."""
    return given


def _is_count(given: object, *, least: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and given >= least


def _were(steps: Collection[int]) -> str:
    return "was" if len(steps) == 1 else "were"
