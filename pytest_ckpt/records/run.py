"""One execution of a job: its steps, what it left on disk and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pytest_ckpt.records.checkpoint import Checkpoint
from pytest_ckpt.records.codec import Record
from pytest_ckpt.records.crash import Trace
from pytest_ckpt.records.experiment import Experiment
from pytest_ckpt.records.loading import Loading
from pytest_ckpt.records.rehearsal import Rehearsal
from pytest_ckpt.records.said import Said
from pytest_ckpt.records.state import Reading, StateRecord, StepRecord
from pytest_ckpt.records.strike import Struck
from pytest_ckpt.records.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Record):
    """How a run ended.

    Attributes:
        status: `finished`; `raised` an exception; `skipped` by `pytest.skip`; `exited` without returning; `killed` by a
            signal; `hung` until the deadline; `stopped` by the experiment itself.
        message: one line that says what happened.
        traceback: the exception's traceback, or where a hung job stood.
        exit_code: of a job that left by itself.
        signal: that ended it.
        leftovers: processes that it left behind and that were ended.
        start_method: `fork` or `spawn`.
        seconds: wall-clock time of the process.
    """

    status: Literal["finished", "raised", "skipped", "exited", "killed", "hung", "stopped"]
    message: str = ""
    traceback: str = ""
    exit_code: int | None = None
    signal: int | None = None
    leftovers: tuple[str, ...] = ()
    start_method: str = "fork"
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the job did what was asked of it."""
        return self.status in {"finished", "stopped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look(Record):
    """The job's directory at one moment.

    Attributes:
        step: how many steps were done.
        phase: `start`, `step` (the next step begins), `save` (a framework said a save is finished), `train_end`, `exit`.
        tree: everything there.
        writing: files that the job's process held open for writing at that moment.
        at_rest: whether a later look found everything unchanged.
        time_ns: when, in nanoseconds since the epoch.
    """

    step: int
    phase: str
    tree: Tree
    writing: tuple[str, ...] = ()
    at_rest: bool = False
    time_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveEvent(Record):
    """A save that the job was seen to make.

    Attributes:
        step: how many steps were done when it began.
        path: the file or directory, relative to the job's directory where it lies below it.
        by: `torch.save`, `safetensors` or a framework's name.
        in_main_thread: whether the thread that trains made it.
    """

    step: int
    path: str
    by: str
    in_main_thread: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BestModel(Record):
    """What a framework told of the checkpoint that it takes for the best.

    Attributes:
        metric: by which it is chosen, as the framework logs it.
        mode: whether a low or a high value is good.
        scores: its value at each evaluation, by the framework's own number of the step.
        path: the checkpoint, relative to the job's directory where it lies below it; None if none is recorded.
        loads: whether the framework was to load it when training ends.
    """

    metric: str
    mode: Literal["min", "max"]
    scores: Mapping[int, float] = field(default_factory=dict)
    path: str | None = None
    loads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkFacts(Record):
    """What a framework told about itself and about the run it was configured for.

    Attributes:
        name: as in `pytest_ckpt.frameworks`.
        version: of the framework.
        planned_steps: the last optimizer step of the schedule.
        settings: the settings that govern saving, by their own names, as text.
        save_dir: where it saves, relative to the job's directory, or absolute when it lies elsewhere.
        keep: how many checkpoints it keeps there, the best one included; None if all, or if that is not known.
        keeps_best: whether the best checkpoint is kept beside, or instead of, newer ones.
        best: what is known of the best checkpoint; None where none is chosen.
        loader: what loads a checkpoint without anything that only the job knows; empty where nothing does.
        unread: names of files of a checkpoint that a resume does not read, as patterns of a shell.
        allowed: classes and functions that the framework lets `torch.load(weights_only=True)` use when it resumes.
    """

    name: str
    version: str = ""
    planned_steps: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    save_dir: str | None = None
    keep: int | None = None
    keeps_best: bool = False
    best: BestModel | None = None
    loader: str = ""
    unread: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(Record):
    """Everything that was seen of one run.

    Attributes:
        experiment: the condition it ran under.
        outcome: how it ended.
        steps: the optimizer steps, in order.
        states: further states between the steps.
        looks: the job's directory over time; the first is what the job started from.
        saves: saves that were seen to begin.
        checkpoints: what was found on disk, in the order of appearance.
        frameworks: the frameworks that took part.
        sections: captured output by title: `stdout`, `stderr`, `log`, `warnings`.
        said: the lines of `stdout`, `stderr` and `log` with the time of each, and when a framework told that a save is done.
        directory: the job's own.
        scores: what the job declared its model to be worth, by the number of steps done.
        asked: what of the experiment the job has read: `resume_from`, `restarting`, `changed`; or met: `error`.
        unsaved: trained parameters that were changed after the last step, as training ended, and are in no file as they
            are then.
        strays: files that were written outside the job's directory.
        pointers: links, and files of one line, that are there in the end and name something in the directory by its absolute
            path; with that path.
        allowed: classes and functions that the job lets `torch.load(weights_only=True)` use, by `add_safe_globals`.
        loading: what the official loader made of the checkpoint, in the experiment of that.
        rehearsal: what stood in for the compute; None where the job trained.
        trace: what was seen of its system calls; None where that was not asked for.
        struck: when it got a signal; None where it got none.
        notes: what the reader should know about how the run was made.
    """

    experiment: Experiment
    outcome: Outcome
    steps: tuple[StepRecord, ...] = ()
    states: tuple[StateRecord, ...] = ()
    looks: tuple[Look, ...] = ()
    saves: tuple[SaveEvent, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    frameworks: tuple[FrameworkFacts, ...] = ()
    sections: Mapping[str, str] = field(default_factory=dict)
    said: tuple[Said, ...] = ()
    directory: str = ""
    scores: Mapping[int, float] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    unsaved: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    pointers: Mapping[str, str] = field(default_factory=dict)
    allowed: tuple[str, ...] = ()
    loading: Loading | None = None
    rehearsal: Rehearsal | None = None
    trace: Trace | None = None
    struck: Struck | None = None
    notes: tuple[str, ...] = ()

    @property
    def asked_resume_from(self) -> bool:
        """Whether the job read `resume_from`."""
        return "resume_from" in self.asked

    @property
    def left(self) -> Tree:
        """What lies in the directory in the end."""
        if self.trace is not None and self.trace.operations:
            return self.trace.left
        return self.looks[-1].tree if self.looks else Tree()

    @property
    def last_step(self) -> int:
        """How many optimizer steps were done."""
        return len(self.steps)

    @property
    def last_weights(self) -> Mapping[str, Reading]:
        """The weights when the job ended: those of the last update, or what was seen of each after it."""
        kind, last = "weights/", self.last_step
        weights = dict(self.steps[-1].state.get("update", {})) if self.steps else {}
        for state in self.states:
            if state.step == last:
                seen = ((key, value) for key, value in state.readings.items() if key.startswith(kind))
                weights.update((key.removeprefix(kind), value) for key, value in seen)
        return weights

    @property
    def written(self) -> tuple[Checkpoint, ...]:
        """The checkpoints that this run wrote."""
        return tuple(checkpoint for checkpoint in self.checkpoints if not checkpoint.foreign)

    @property
    def kept(self) -> tuple[Checkpoint, ...]:
        """The checkpoints on disk at the end, older ones of another run included."""
        return tuple(checkpoint for checkpoint in self.checkpoints if checkpoint.kept)

    @property
    def unrecognised(self) -> tuple[str, ...]:
        """The files below the job's directory that were begun in training, are still there and belong to no checkpoint."""
        known = {path for checkpoint in self.checkpoints for path in checkpoint.files}
        begun: dict[str, int] = {}
        for save in self.saves:
            begun.setdefault(save.path, save.step)
        left = self.looks[-1].tree if self.looks else Tree()
        return tuple(path for path, step in begun.items() if step > 0 and path in left and path not in known)

    @property
    def saved_steps(self) -> tuple[int, ...]:
        """The steps after which this run wrote a checkpoint, ascending, each once."""
        return tuple(sorted({self.step_of(checkpoint) for checkpoint in self.written}))

    def index_of(self, claimed: int, *, by: int) -> int | None:
        """Translate the job's own number of a step into the number of steps done, the latest up to `by`.

        A job that trains in several phases may count each of them from 1.
        """
        return max((step.index for step in self.steps[:by] if step.claimed == claimed), default=None)

    def updates_until(self, step: int) -> int:
        """Return how often optimizers had stepped when so many steps were done; several may step in each."""
        return sum(sum(record.ticks.values()) for record in self.steps[:step])

    def step_of(self, checkpoint: Checkpoint) -> int:
        """Return the step that a checkpoint of this run promises to hold.

        That is what its name says where the framework defines it; else, for a save by another thread, the step whose
        state it holds; else how many steps were done when it appeared.
        """
        if checkpoint.claim_is_step and checkpoint.claimed is not None:
            translated = self.index_of(checkpoint.claimed, by=checkpoint.saved_after)
            if translated is not None:
                return translated
        if not checkpoint.in_main_thread and checkpoint.held_step is not None:
            return min(checkpoint.held_step, checkpoint.saved_after)
        return checkpoint.saved_after

    def checkpoint(self, identity: str) -> Checkpoint:
        """Return the checkpoint of that identity.

        Raises:
            KeyError: there is none.
        """
        for checkpoint in self.checkpoints:
            if checkpoint.identity == identity:
                return checkpoint
        known = ", ".join(checkpoint.identity for checkpoint in self.checkpoints) or "none"
        raise KeyError(f"no checkpoint {identity}; this run has {known}")  # noqa: TRY003, EM102
