"""Conditions under which a job is run; a contract asks for them, the lab carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pytest_ckpt.records.codec import Record

#: How a child is seeded before the job: as the baseline was, or unlike it, as a new process in production would be.
Seeds: TypeAlias = Literal["baseline", "fresh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment(Record):
    """One condition.

    Attributes:
        kind: `baseline` is the undisturbed run and `repeat` the same once more; `resume` starts from a checkpoint of the
            baseline; `control` does so after damage that the comparison must notice; `error` meets an exception.
        checkpoint: identity of the checkpoint to resume from (`Checkpoint.identity`).
        seeds: what the global random generators are seeded with before the job starts.
        stop_after: end the process, or raise the exception, after this many steps; None lets the job finish.
    """

    kind: Literal["baseline", "repeat", "resume", "control", "error"]
    checkpoint: str | None = None
    seeds: Seeds = "baseline"
    stop_after: int | None = None

    @property
    def title(self) -> str:
        """A short name for reports, such as `resume from checkpoint-4`."""
        if self.kind == "error":
            return f"error after step {self.stop_after}"
        if self.checkpoint is None:
            return self.kind
        seeds = ", seeded as the baseline" if self.kind == "resume" and self.seeds == "baseline" else ""
        return f"{self.kind} from {self.checkpoint}{seeds}"


BASELINE = Experiment(kind="baseline")
REPEAT = Experiment(kind="repeat")


def resume(checkpoint: str, *, seeds: Seeds = "fresh") -> Experiment:
    """Return the experiment that resumes from `checkpoint` and lets the job finish."""
    return Experiment(kind="resume", checkpoint=checkpoint, seeds=seeds)


def control(checkpoint: str, *, stop_after: int = 1) -> Experiment:
    """Return the experiment that resumes from a damaged copy of `checkpoint` and must be seen to differ by so many steps."""
    return Experiment(kind="control", checkpoint=checkpoint, seeds="baseline", stop_after=stop_after)


def error(*, after: int) -> Experiment:
    """Return the experiment in which an exception is raised in the first forward pass after so many steps."""
    return Experiment(kind="error", stop_after=after)
