"""What a job that got a signal did: how it left, what it had saved by then, and what a restart makes of that."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.faulted import Faulted
from pytest_ckpt.contracts.restarts import Restarted
from pytest_ckpt.contracts.trajectory import StepDifference, Trajectory

if TYPE_CHECKING:
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.strike import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempted(Faulted):
    """A run that got a signal, beside the same run that got none."""

    @property
    def phase(self) -> Phase:
        """What the job was doing."""
        strike = self.run.experiment.strike
        assert strike is not None  # noqa: S101 - the experiment is one of a signal
        return strike.phase

    @property
    def step(self) -> int | None:
        """How many steps were done when the signal came; None where it did not."""
        if self.run.struck is not None:
            return self.run.struck.step
        strike = self.run.experiment.strike
        return strike.after if strike is not None and self.refused is not None else None

    @property
    def is_late(self) -> bool:
        """Whether it was still there when the time of grace was over."""
        return self.run.outcome.status == "hung" or self.run.outcome.signal == signal.SIGKILL

    @property
    def passes_over(self) -> bool:
        """Whether it trained to its end and saved when it would have anyway, though it had steps left to do otherwise."""
        last, step = self.undisturbed.last_step, self.step or 0
        more = set(self.run.saved_steps) - set(self.undisturbed.saved_steps)
        return not self.is_late and self.run.last_step >= last >= step + 3 and not more

    @property
    def is_lost(self) -> bool:
        """Whether the last finished step, or one after it, is not there whole."""
        return self.choice.step < (self.step or 0)

    @property
    def exit_code(self) -> int | None:
        """With which it left, as a shell would tell it."""
        outcome = self.run.outcome
        return outcome.exit_code if outcome.signal is None else 128 + outcome.signal

    @property
    def is_worth_a_restart(self) -> bool:
        """Whether it has left what a restart has to go on from."""
        return not (self.is_late or self.passes_over or self.is_lost) and self.choice.step < self.undisturbed.last_step

    def restarted(self, run: RunRecord, usual: RunRecord | None) -> Restarted:
        """Return what a restart did, and in what its state differs that a restart without a signal restores."""
        found = Restarted.of(run, self.choice, self.undisturbed)
        if found.way != "newest":
            return found
        trajectory = Trajectory.of(self.undisturbed)
        own = trajectory.first_difference(run.steps[:1], self.choice.step, "data")
        if own is None or usual is None or not usual.steps:
            return replace(found, difference=own)
        return replace(found, difference=_without(own, self._usual_difference(usual)))

    def _usual_difference(self, usual: RunRecord) -> StepDifference | None:
        started = usual.experiment.checkpoint
        if started is None:
            return None
        step = self.undisturbed.step_of(self.undisturbed.checkpoint(started))
        return Trajectory.of(self.undisturbed).first_difference(usual.steps[:1], step, "data")


def _without(own: StepDifference, usual: StepDifference | None) -> StepDifference | None:
    keys = {name: keys for name, keys in own.keys.items() if usual is None or name not in usual.keys}
    return replace(own, keys=keys) if keys else None
