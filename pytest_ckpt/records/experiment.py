"""Conditions under which a job is run; a contract asks for them, the lab carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pytest_ckpt.records.codec import Record
from pytest_ckpt.records.fault import Fault
from pytest_ckpt.records.slowness import Slowness
from pytest_ckpt.records.strike import Strike

#: How a child is seeded before the job: as the baseline was, or unlike it, as a new process in production would be.
Seeds: TypeAlias = Literal["baseline", "fresh"]


#: New values of settings, by the names that the framework or the job gives them.
Changes: TypeAlias = tuple[tuple[str, str | int | float | bool | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage(Record):
    """What has happened to the job's directory before the job is started again.

    Attributes:
        kind: `missing` removes what is at `path`, `cut` leaves the first half of a file, `stale` leaves a copy of `path`
            from long ago at `target`, as an earlier run would have, and `renamed` moves `path` to `target`, and files that differ
            from it in their endings alone with it.
        path: relative to the job's directory.
        target: the path of the copy, or the new path.
    """

    kind: Literal["missing", "cut", "stale", "renamed"]
    path: str
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment(Record):
    """One condition.

    Attributes:
        kind: `baseline` is the undisturbed run and `repeat` the same once more; `resume` starts from a checkpoint that it is
            told of; `restart` finds what was there when that checkpoint had been saved and has to search for itself;
            `control` resumes after damage that the comparison must notice; `error` meets an exception; `load` is told of a
            checkpoint as `resume` is, and the framework's official loader reads it in the place of training; `traced` is the
            baseline once more with its system calls seen, `fault` that with calls that fail, and `slow` that with a disk that is
            slow for what is written beside the training; `signal` is the baseline with a signal in its midst.
        checkpoint: identity of the checkpoint to start from (`Checkpoint.identity`).
        seeds: what the global random generators are seeded with before the job starts.
        stop_after: end the process, or raise the exception, after this many steps; None lets the job finish.
        damage: done to the directory before.
        moved: whether the directory has been moved to another place.
        changes: settings that have other values than in the baseline.
        origin: the run that saved the checkpoint; None for the baseline.
        crash: which of the origin's crash states (`Trace.states`) the job is started again in; None for no crash.
        fault: which calls fail, and how.
        strike: which signal the job gets, and when.
        slowness: how slow the disk is in the background.
    """

    kind: Literal[
        "baseline", "repeat", "resume", "restart", "control", "error", "load", "traced", "fault", "signal", "slow"
    ]
    checkpoint: str | None = None
    seeds: Seeds = "baseline"
    stop_after: int | None = None
    damage: Damage | None = None
    moved: bool = False
    changes: Changes = ()
    origin: Experiment | None = None
    crash: int | None = None
    fault: Fault | None = None
    strike: Strike | None = None
    slowness: Slowness | None = None

    @property
    def title(self) -> str:
        """A short name for reports, such as `resume from checkpoint-4`."""
        if self.kind == "error":
            return f"error after step {self.stop_after}"
        if self.crash is not None:
            return f"restart after crash {self.crash}"
        disturbance = self.fault or self.strike or self.slowness
        if disturbance is not None:
            return disturbance.title
        if self.restarts_what_was_left and self.origin is not None:
            return f"restart after {self.origin.title}"
        text = self.kind if self.checkpoint is None else f"{self.kind} from {self.checkpoint}"
        if self.origin is not None:
            text += f" of the {self.origin.title}"
        if self.damage is not None:
            text += f", {self.damage.path} {self.damage.kind}"
            text += f" {self.damage.target}" if self.damage.kind == "renamed" else ""
        if self.moved:
            text += ", moved"
        if self.changes:
            text += f", {', '.join(f'{name}={value}' for name, value in self.changes)}"
        plain = self.kind == "resume" and self.damage is None and self.origin is None
        return f"{text}, seeded as the baseline" if plain and self.seeds == "baseline" else text

    @property
    def is_traced(self) -> bool:
        """Whether the system calls of the run are seen."""
        return self.kind in {"traced", "fault", "slow"} or (self.strike is not None and self.strike.phase == "save")

    @property
    def is_whole(self) -> bool:
        """Whether the job is run from its beginning, with the settings of the baseline, as if nothing were to happen."""
        return self.kind in {"baseline", "repeat", "traced", "fault", "signal", "slow"} and not self.changes

    @property
    def restarts_what_was_left(self) -> bool:
        """Whether the job is started again in what another run has left in the end."""
        return self.kind == "restart" and self.origin is not None and self.checkpoint is None and self.crash is None


BASELINE = Experiment(kind="baseline")
REPEAT = Experiment(kind="repeat")
TRACED = Experiment(kind="traced")


def resume(checkpoint: str, *, seeds: Seeds = "fresh") -> Experiment:
    """Return the experiment that resumes from `checkpoint` and lets the job finish."""
    return Experiment(kind="resume", checkpoint=checkpoint, seeds=seeds)


def resume_moved(checkpoint: str) -> Experiment:
    """Return the experiment of `resume(checkpoint)` after the job's directory was moved to another place."""
    return Experiment(kind="resume", checkpoint=checkpoint, seeds="fresh", moved=True)


def changed(changes: Changes) -> Experiment:
    """Return the experiment of the whole job with other settings."""
    return Experiment(kind="repeat", changes=changes)


def resume_changed(checkpoint: str, changes: Changes) -> Experiment:
    """Return the experiment of `resume(checkpoint)` with other settings than those under which it was saved."""
    return Experiment(kind="resume", checkpoint=checkpoint, seeds="fresh", changes=changes)


def control(checkpoint: str, *, stop_after: int = 1) -> Experiment:
    """Return the experiment that resumes from a damaged copy of `checkpoint` and must be seen to differ by so many steps."""
    return Experiment(kind="control", checkpoint=checkpoint, seeds="baseline", stop_after=stop_after)


def load(checkpoint: str) -> Experiment:
    """Return the experiment in which the framework's official loader reads `checkpoint`, and nothing is trained."""
    return Experiment(kind="load", checkpoint=checkpoint, seeds="fresh")


def error(*, after: int) -> Experiment:
    """Return the experiment in which an exception is raised in the first forward pass after so many steps."""
    return Experiment(kind="error", stop_after=after)


def resume_after_error(checkpoint: str, *, after: int) -> Experiment:
    """Return the experiment that resumes from a checkpoint of the run that met an error after so many steps."""
    return Experiment(kind="resume", checkpoint=checkpoint, seeds="fresh", origin=error(after=after))


def restart(checkpoint: str, *, damage: Damage | None = None, stop_after: int | None = 1) -> Experiment:
    """Return the experiment that starts the job again in what lay there when `checkpoint` had been saved."""
    return Experiment(kind="restart", checkpoint=checkpoint, damage=damage, stop_after=stop_after)


def restart_after_crash(state: int, *, stop_after: int | None = 1) -> Experiment:
    """Return the experiment that starts the job again in a state in which a kill could have left the traced run."""
    return Experiment(kind="restart", origin=TRACED, crash=state, stop_after=stop_after)


def faulty(fault: Fault) -> Experiment:
    """Return the experiment of the whole job with calls that fail."""
    return Experiment(kind="fault", fault=fault)


def slowed(slowness: Slowness) -> Experiment:
    """Return the experiment of the whole job with a disk that is slow for what is written beside the training."""
    return Experiment(kind="slow", slowness=slowness)


def struck(strike: Strike) -> Experiment:
    """Return the experiment of the whole job with a signal in its midst."""
    return Experiment(kind="signal", strike=strike)


def restart_in_what_is_left(origin: Experiment, *, stop_after: int | None = 1) -> Experiment:
    """Return the experiment that starts the job again in what another run has left in the end."""
    return Experiment(kind="restart", origin=origin, stop_after=stop_after)
