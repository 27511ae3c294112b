"""What the engine asks of a framework, and what a framework may tell the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, runtime_checkable

from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pytest_ckpt.configs.schedule import Schedule
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.loading import Loading
    from pytest_ckpt.records.rehearsal import Rehearsal
    from pytest_ckpt.records.run import FrameworkFacts, RunRecord
    from pytest_ckpt.records.tree import Tree
    from pytest_ckpt.records.verdict import Advice


#: What the clock of a rehearsal can tell apart.
_MICROSECOND: Final = 1e-6

#: What a trainer starts from: the path of a checkpoint, True for the newest that it finds, None for nothing.
Start: TypeAlias = str | Literal[True] | None


#: What evaluations of a rehearsal answer: always the same, one value after the other, or a function of the step.
OneMetric: TypeAlias = "float | Sequence[float] | Callable[[int], float]"
#: The same for every metric, or by the names under which the framework logs them.
Metric: TypeAlias = "OneMetric | Mapping[str, OneMetric] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsing:
    """What is asked of a rehearsal, and how it tells of itself.

    Attributes:
        metric: what evaluations answer; None leaves it to the framework's stand-in, which always answers 1.
        world_size: how many processes the schedule is to be worked out for; this process is the first of them.
        origin: where the schedule comes from if not from the job's own code, as part of a sentence.
        seconds_per_step: how long each optimizer step is to take on the clock of this process; None leaves that alone.
        tell: to be called once before training begins.
        reached: to be called with who read what, where something met a stand-in that needs the real thing.
        give_up: to be called where the loop can't go on after that; ends the process, but for one under a debugger.
    """

    metric: Metric
    world_size: int
    tell: Callable[[Rehearsal], None]
    reached: Callable[[str], None]
    give_up: Callable[[], None]
    origin: str = ""
    seconds_per_step: float | None = None

    def __post_init__(self) -> None:
        _check_processes(self.world_size)
        _check_seconds(self.seconds_per_step)
        for values in self.metric.values() if isinstance(self.metric, Mapping) else [self.metric]:
            _check_metric(values)


def _check_processes(given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        message = f"world_size must be the number of processes of the real run, 1 or more; got {given!r}"
        raise InvalidArgument(message)


def _check_metric(given: object) -> None:
    if isinstance(given, str) or (isinstance(given, Sequence) and not given):
        message = f"metric must say what evaluations answer: numbers, or a function of the step; got {given!r}"
        raise InvalidArgument(message)


def _check_seconds(given: object) -> None:
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not _MICROSECOND <= given < float("inf"):
        message = f"seconds_per_step must be how long a step of the real run takes, a number above 0; got {given!r}"
        raise InvalidArgument(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A checkpoint that a framework's layout recognises.

    Attributes:
        path: relative to the job's directory.
        claimed: the framework's number of the step, taken from the name.
    """

    path: str
    claimed: int | None = None


class Observer(Protocol):
    """What a framework tells, in the job's process; every call is cheap and never raises."""

    @property
    def changes(self) -> Mapping[str, object]:
        """Settings that the experiment gives other values, which the framework has to apply as training starts."""

    @property
    def loading(self) -> str | None:
        """The absolute path of the checkpoint that the official loader is to read where training would start; None to train.

        Asked for only where the facts name a loader (`FrameworkFacts.loader`).
        """

    def loaded(self, loading: Loading, models: Sequence[object]) -> None:
        """Tell what the loader did, with the models that it returned from different seeds; the process ends with that."""

    def framework(self, facts: FrameworkFacts) -> None:
        """Tell what is being run; call it again when a setting is known better."""

    def expect_told(self) -> None:
        """Announce that `end_step` will be called at the end of every step."""

    def end_step(self, claimed: int | None = None) -> None:
        """Tell that an optimizer step has ended, with the framework's own number of it."""

    def saving(self, path: str, by: str) -> None:
        """Tell that a save to `path` begins, made by the framework of that name; not needed for torch.save to a path."""

    def look(self, phase: str) -> None:
        """Have the directory looked at, because a save is finished (`save`) or training has ended (`train_end`)."""

    def relative(self, path: str) -> str:
        """Return a path relative to the job's directory where it lies below it, else absolute."""


@runtime_checkable
class Framework(Protocol):
    """A training framework.

    An instance is created in the pytest process and used there for what lies on disk, and in the job's process for
    `attach` and `train`. The module that defines it must not import the framework itself.
    """

    @property
    def name(self) -> str:
        """A short name, unique among the frameworks."""

    @property
    def module(self) -> str:
        """The module whose import means that the framework takes part, such as `transformers.trainer`."""

    def attach(self, module: ModuleType, observer: Observer) -> None:
        """Arrange in the job's process that `observer` is told of steps and saves, without changing what the job does."""

    def warm_up(self, module: ModuleType) -> None:
        """Have `module` compute once, in the pytest process, what every process forked from it would compute for itself.

        Called before each of them, where the framework has been imported. It must not start threads nor use a device.
        """

    def drives(self, trainer: object) -> bool:
        """Say whether `trainer` is an object of this framework that `train` can start."""

    def train(
        self, trainer: object, resume_from: Start, max_steps: int | None, *args: object, **kwargs: object
    ) -> object:
        """Start `trainer` with what else it needs, its schedule cut to `max_steps`.

        It resumes from the checkpoint at the path `resume_from`; where that is True, from the one that the framework's own
        search for the newest finds; and starts afresh where it is None.
        """

    def find(self, tree: Tree, save_dir: str) -> tuple[Found, ...]:
        """Return the checkpoints of this framework's layout in `tree`."""

    def expected_count(self, facts: FrameworkFacts, run: RunRecord) -> int | None:
        """Return how many checkpoints should remain by the configuration in force; None where that can't be said."""

    def promised_steps(self, facts: FrameworkFacts, run: RunRecord) -> frozenset[int] | None:
        """Return the steps after which the configuration in force has a checkpoint saved, before any is deleted again.

        Steps are counted as in `run.steps`, the last one included where the framework means to save it. None where the
        steps do not follow from the configuration, as when a metric decides.
        """

    def required_files(self, checkpoint: Checkpoint, facts: FrameworkFacts) -> tuple[str, ...]:
        """Return the files without which `checkpoint` is not whole, relative to it; they may be patterns as of a shell.

        Where one of several forms is enough, that is the form of which something is there. Empty where nothing is known,
        as of a checkpoint that is not of this framework's layout.
        """

    def advise(self, component: str, checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
        """Explain why `component` differs after resuming from `checkpoint`."""

    def advise_missing_final(self, facts: FrameworkFacts, run: RunRecord) -> Advice:
        """Explain why the last step is not on disk."""


@runtime_checkable
class Rehearses(Protocol):
    """A framework whose schedule can be rehearsed; not all can."""

    def rehearse(self, trainer: object, asked: Rehearsing, *args: object, **kwargs: object) -> object:
        """Run the framework's own loop over the whole schedule of `trainer`, with stand-ins for what only computes.

        Saves, callbacks, evaluation points and the data set's length stay the real ones. Whatever is read of a stand-in
        that only the real thing has is told by `asked.reached`.
        """


@runtime_checkable
class Configured(Protocol):
    """A framework that can make a trainer of what a configuration file says; not all can."""

    def configured(self, schedule: Schedule, output_dir: str) -> object:
        """Return a trainer for `rehearse`, with that schedule and without anything else of the real run."""
