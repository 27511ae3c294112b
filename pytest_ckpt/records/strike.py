"""A signal that a job gets in an experiment, as from a scheduler that takes its machine away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from pytest_ckpt.records.codec import Record

#: `forward`: a forward pass begins; `accumulation`: the second one of a step does; `step`: an optimizer has just stepped;
#: `evaluation`: a forward pass without gradients begins; `loader`: a DataLoader is iterated; `save`: in the midst of a save.
Phase: TypeAlias = Literal["forward", "accumulation", "step", "evaluation", "loader", "save"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike(Record):
    """A signal at one moment.

    Attributes:
        signal: its name.
        phase: what the job is doing then.
        after: how many steps are done, at least.
        grace: seconds after which the job is killed, if it is still there.
        last: how many steps the job trains if it gets no signal.
        time: seconds that the steps between the first one after the signal and the last take together, as those of a real
            run take their time.
        operation: in a save, how many operations of the traced run come before.
        kind: in a save, the kind of that operation.
    """

    signal: str
    phase: Phase
    after: int
    grace: float
    last: int = 0
    time: float = 0.0
    operation: int = 0
    kind: str = ""

    @property
    def title(self) -> str:
        """The strike in a few words, such as `SIGTERM in forward after step 3`."""
        return f"{self.signal} in {self.phase} after step {self.after}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck(Record):
    """What was seen of a strike.

    Attributes:
        step: how many steps were done.
        phase: what the job was doing.
    """

    step: int
    phase: Phase
