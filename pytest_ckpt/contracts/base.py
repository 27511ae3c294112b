"""What a contract is, and what it is given to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Protocol, runtime_checkable

from pytest_ckpt.records.experiment import BASELINE
from pytest_ckpt.records.verdict import Advice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Verdict


#: How many checkpoints are resumed from where none are named; more say nothing new and take their time.
_AT_MOST: Final = 5


class Advisor(Protocol):
    """Answers in the terms of the framework that took part in the baseline."""

    def component(self, component: str, checkpoint: Checkpoint) -> Advice:
        """Explain why `component` differs after resuming from `checkpoint`."""

    def missing_final(self) -> Advice:
        """Explain why the last step is not on disk."""

    def expected_count(self) -> int | None:
        """Return how many checkpoints should remain by the configuration in force."""

    def promised_steps(self) -> frozenset[int] | None:
        """Return the steps that the configuration in force has saved, before any checkpoint is deleted again."""

    def required_files(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return the files, relative to `checkpoint`, without which it is not whole; empty where that is not known."""


class NoAdvice:
    """The advisor of a job without a known framework."""

    def component(self, component: str, checkpoint: Checkpoint) -> Advice:
        """Know nothing."""
        del component, checkpoint
        return Advice()

    def missing_final(self) -> Advice:
        """Know nothing."""
        return Advice()

    def expected_count(self) -> int | None:
        """Know nothing."""
        return None

    def promised_steps(self) -> frozenset[int] | None:
        """Know nothing."""
        return None

    def required_files(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Know nothing."""
        del checkpoint
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The runs made so far.

    Attributes:
        runs: by the experiment; the baseline is always there.
        advisor: what the framework says about causes.
    """

    runs: Mapping[Experiment, RunRecord]
    advisor: Advisor

    @property
    def baseline(self) -> RunRecord:
        """The undisturbed run."""
        return self.runs[BASELINE]

    def of(self, experiment: Experiment) -> RunRecord | None:
        """Return the run of an experiment, if it was made."""
        return self.runs.get(experiment)


@runtime_checkable
class Contract(Protocol):
    """A promise about the checkpoints of a job.

    A contract is a frozen dataclass: the fields are the arguments of its marker, and creating it validates them by raising
    `InvalidArgument`. Instances are pure: `plan` and `judge` read records and return data.
    """

    #: The marker is `ckpt_<name>`.
    name: ClassVar[str]
    #: The first line is what `pytest --markers` shows.
    __doc__: str | None

    @classmethod
    def default(cls) -> Contract | None:
        """Return the instance that belongs to the default set, or None if the contract does not."""

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Return the experiments needed, as far as can be told from the runs made so far; it is asked again after them."""

    def judge(self, evidence: Evidence) -> Verdict:
        """Return the verdict, when `plan` asks for nothing more."""


class OnRequest:
    """Base of the contracts that only a mark of their own asks for."""

    @classmethod
    def default(cls) -> Contract | None:
        """Leave it out of the default set."""
        return None


class OfSchedule:
    """Base of the contracts on when is saved and what remains: a rehearsal decides them as well as a real run."""


class OfBaseline:
    """Base of the contracts that the undisturbed run alone decides."""

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Ask for nothing but the baseline."""
        del evidence
        return ()


def promised(run: RunRecord) -> tuple[Checkpoint, ...]:
    """Return the checkpoints that a resume may name, exports of the mere model left out.

    Where a framework's layout says what a checkpoint is, those; else those that can continue training, if there are any.
    """
    full = tuple(checkpoint for checkpoint in run.checkpoints if checkpoint.kind == "full")
    return recognised(run) or full or run.checkpoints


def recognised(run: RunRecord) -> tuple[Checkpoint, ...]:
    """Return the checkpoints that a framework's layout says are some."""
    return tuple(checkpoint for checkpoint in run.checkpoints if checkpoint.claim_is_step)


def successive(run: RunRecord) -> tuple[Checkpoint, ...]:
    """Return the checkpoints that are saved one after the other: those with a number in their name, if there are any.

    A copy beside them, such as `last.pt` or `best.pt`, is none; neither is an export of the mere model.
    """
    ours = promised(run)
    plain = tuple(checkpoint for checkpoint in ours if "best" not in checkpoint.path.lower()) or ours
    return tuple(checkpoint for checkpoint in plain if checkpoint.claimed is not None) or plain


def spread(checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """Return the checkpoints to resume from where none are named: all, or a few of many from the first to the last."""
    if len(checkpoints) <= _AT_MOST:
        return tuple(checkpoints)
    places = {round(number * (len(checkpoints) - 1) / (_AT_MOST - 1)) for number in range(_AT_MOST)}
    return tuple(checkpoints[place] for place in sorted(places))
