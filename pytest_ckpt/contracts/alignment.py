"""The contract that the interval of saves fits the length of the run: nothing is left over at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts.base import Evidence, OfBaseline, OfSchedule, OnRequest, recognised
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps, some_of
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.intervals import divisors_near, multiples_near
from pytest_ckpt.records.verdict import Advice, Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class Aligned(OnRequest, OfBaseline, OfSchedule):
    """The interval of saves divides the steps of the run; or, with `max_lost_steps`, no crash and no end loses more steps."""

    name: ClassVar[str] = "aligned"
    _: KW_ONLY
    max_lost_steps: int | None = None

    def __post_init__(self) -> None:
        given: object = self.max_lost_steps
        if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 0):
            message = f"max_lost_steps must be a whole number of steps, 0 or more; got {given!r}"
            raise InvalidArgument(message)

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the gaps between the saves with the length of the run."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        if not run.written:
            return inconclusive(self.name, nothing_saved(run))
        saves = _Saves.of(run)
        broken = not saves.fit if self.max_lost_steps is None else saves.most_lost > self.max_lost_steps
        if not broken:
            return held(self.name, f"{saves.sentence}; {saves.loss}")
        return violated(self.name, self._finding(saves, evidence))

    def _finding(self, saves: _Saves, evidence: Evidence) -> Finding:
        run = evidence.baseline
        uneven = self.max_lost_steps is None and saves.total % saves.interval != 0
        advice = evidence.advisor.component(self.name, run.written[-1]) if uneven else Advice()
        bound = "" if self.max_lost_steps is None else f", and max_lost_steps is {self.max_lost_steps}"
        return Finding(
            title=f"{saves.sentence}: {saves.loss}{bound}",
            rows=(("trained", f"{run.last_step} steps"), ("saved at", f"steps {some_of(saves.steps)}")),
            cause=advice.cause or saves.cause,
            fix=advice.fix or self._fix(saves),
            step=run.last_step,
            component="aligned",
        )

    def _fix(self, saves: _Saves) -> str:
        if self.max_lost_steps is not None:
            return f"save every {self.max_lost_steps or 1} steps or more often, and once more when training has ended."
        if not saves.total % saves.interval:
            return "find out what skips the last save, or save once more when training has ended."
        near = " or ".join(str(interval) for interval in divisors_near(saves.total, saves.interval))
        lengths = " or ".join(str(total) for total in multiples_near(saves.total, saves.interval))
        other = f"save every {near} steps, which divides {saves.total}; or " if near else ""
        return f"{other}train {lengths} steps."


@dataclass(frozen=True, slots=True)
class _Saves:
    """When was saved.

    Attributes:
        interval: the usual number of steps between two saves.
        total: how many steps were trained.
    """

    steps: tuple[int, ...]
    interval: int
    total: int

    @classmethod
    def of(cls, run: RunRecord) -> _Saves:
        saved = {run.step_of(checkpoint) for checkpoint in recognised(run) or run.written if not checkpoint.foreign}
        steps = tuple(sorted(saved - {0}))
        gaps = Counter(later - earlier for earlier, later in pairwise((0, *steps)))
        return cls(steps, gaps.most_common(1)[0][0] if gaps else run.last_step, run.last_step)

    @property
    def fit(self) -> bool:
        """Whether the last save is one of the regular ones and comes after the last step."""
        return self.at_end == 0 and self.total % self.interval == 0

    @property
    def at_end(self) -> int:
        """How many steps are lost when training ends."""
        return self.total - max(self.steps, default=0)

    @property
    def in_crash(self) -> int:
        """How many steps a crash may lose: up to the one before the next save is complete."""
        return max(later - earlier for earlier, later in pairwise((0, *self.steps, self.total)))

    @property
    def most_lost(self) -> int:
        """How many steps are lost at worst."""
        return max(self.at_end, self.in_crash)

    @property
    def sentence(self) -> str:
        left = self.total % self.interval
        times = self.total // self.interval
        whole = f"{self.total} steps are {times} {'time' if times == 1 else 'times'} the interval of {self.interval}"
        return f"{whole}, and {left} more" if left else whole

    @property
    def loss(self) -> str:
        end = f"the end loses {self.at_end} steps" if self.at_end else "the end loses none"
        return f"{end}, a crash at most {self.in_crash}"

    @property
    def cause(self) -> str:
        if self.total % self.interval:
            return f"the interval of {self.interval} steps does not divide {self.total}."
        return f"saves are up to {self.most_lost} steps apart, or from the end."
