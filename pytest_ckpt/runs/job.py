"""The one object that a job under test touches: where to write and where to resume from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ckpt.configs import read
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.frameworks.protocol import Configured, Rehearses, Rehearsing
from pytest_ckpt.runs import program

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from pytest_ckpt.frameworks.protocol import Framework, Metric, Start
    from pytest_ckpt.records.rehearsal import Rehearsal


class Job:
    """What the plugin gives to the training code under test.

    The same object serves every experiment; in the child process of an experiment it answers for that one.
    """

    def __init__(self, directory: Path, *, device: str = "cpu", frameworks: Sequence[Framework] = ()) -> None:
        self._dir = directory
        self._device = device
        self._frameworks = tuple(frameworks)
        self._resume_from: str | None = None
        self._is_baseline = True
        self._restarting = False
        self._changes: Mapping[str, object] = {}
        self._on_ask: Callable[[str], None] = _nothing
        self._on_step: Callable[[], None] = _nothing
        self._on_score: Callable[[float], None] = _nothing
        self._on_rehearsal: Callable[[Rehearsal], None] = _nothing
        self._on_reached: Callable[[str], None] = _nothing
        self._on_give_up: Callable[[], None] = _nothing
        self._on_command: Callable[[], Mapping[str, str]] = dict
        self._pattern: str | None = None

    def __repr__(self) -> str:
        return f"<Job dir={str(self._dir)!r} resume_from={self._resume_from!r}>"

    @property
    def dir(self) -> str:
        """The absolute path of the directory to write into; the same in all experiments of a test but for a moved one."""
        return str(self._dir)

    @property
    def path(self) -> Path:
        """The same directory as a `pathlib.Path`."""
        return self._dir

    @property
    def device(self) -> str:
        """The device to train on, `cpu` or `cuda`, as asked for with `--ckpt-device`."""
        return self._device

    @property
    def resume_from(self) -> str | None:
        """The absolute path of the checkpoint to resume from, or None to start afresh; pass it to the training code."""
        self._on_ask("resume_from")
        return self._resume_from

    @property
    def is_baseline(self) -> bool:
        """Whether this is the undisturbed run."""
        return self._is_baseline

    @property
    def restarting(self) -> bool:
        """Whether this is a restart, as after a crash: the job has to search `dir` for the newest checkpoint itself.

        `resume_from` is None then. A job that resumes whatever it finds need not ask.
        """
        self._on_ask("restarting")
        return self._restarting

    @property
    def changed(self) -> Mapping[str, object]:
        """Settings that have another value in this experiment, by name.

        A known framework is given them as its training starts; a job that reads them applies them by itself instead.
        """
        self._on_ask("changed")
        return self._changes

    def step(self) -> None:
        """Declare that an optimizer step ends here, where no torch optimizer tells."""
        self._on_step()

    def score(self, value: float) -> None:
        """Declare what the model is worth as it is now, by the metric that decides which checkpoint is the best.

        Not needed where a framework evaluates the metric.
        """
        self._on_score(float(value))

    def layout(self, pattern: str) -> None:
        """Declare which paths below `dir` are checkpoints, as a glob such as `ckpts/step_*.pt`.

        Not needed where the framework is known, nor where saves can be told apart by their content.
        """
        if not pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            message = f"layout({pattern!r}): expected a glob relative to ckpt_job.dir, such as 'step_*.pt'"
            raise InvalidArgument(message)
        self._pattern = pattern

    def train(self, trainer: object, *args: object, max_steps: int | None = None, **kwargs: object) -> object:
        """Train a trainer object of a known framework: resume it, or have it search, where this experiment asks for that.

        Args:
            trainer: such as a `transformers.Trainer` or a `lightning.pytorch.Trainer`.
            args: what else its own method is called with, such as the model and the data of a Lightning trainer.
            max_steps: cut the schedule to that many optimizer steps, in every experiment alike.

        Raises:
            InvalidArgument: no known framework drives such an object.
        """
        for framework in self._frameworks:
            if framework.drives(trainer):
                start: Start = True if self.restarting else self.resume_from
                return framework.train(trainer, start, max_steps, *args, **kwargs)
        names = ", ".join(framework.name for framework in self._frameworks) or "none"
        message = (
            f"ckpt_job.train got {type(trainer).__module__}.{type(trainer).__qualname__}, which no known framework drives "
            f"(known: {names}). Start it yourself and pass ckpt_job.resume_from to it."
        )
        raise InvalidArgument(message)

    def command(
        self,
        arguments: Sequence[str | os.PathLike[str] | float],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        """Run a program that trains, such as `[sys.executable, "train.py"]` or one under torchrun, to its end.

        Its process of rank 0 is looked at, or the first that trains where none has a rank.

        Args:
            arguments: the program and what it is called with, each as one text, path or number.
            env: its environment; that of the job by default.
            cwd: its current directory; that of the job by default.

        Raises:
            InvalidArgument: that is no such list.
            subprocess.CalledProcessError: it ended with another exit code than 0.
            FileNotFoundError: there is no such program.
        """
        program.run(arguments, env=env, cwd=cwd, watched=self._on_command())

    def rehearse_config(
        self,
        path: str | os.PathLike[str],
        *,
        dataset_len: int | None = None,
        metric: Metric = None,
        world_size: int = 1,
    ) -> object:
        """Rehearse the run that a configuration file describes; see `rehearse`.

        Args:
            path: of a YAML or JSON file of Axolotl, of LLaMA-Factory, or with arguments of transformers.
            dataset_len: samples that the trainer is given, for all processes together; counted where the file names local
                data and nothing but a split for validation stands between them and the trainer.
            metric: what evaluations answer.
            world_size: how many processes the real run has.

        Raises:
            InvalidArgument: the file can't be read, is of no known kind, or does not say how long the run is.
        """
        asked = self._rehearsing(metric, world_size)
        schedule = read(path, dataset_len=dataset_len, world_size=world_size)
        framework = next(one for one in self._frameworks if isinstance(one, Configured) and isinstance(one, Rehearses))
        trainer = framework.configured(schedule, self.dir)
        origin = f"{Path(path).name}, {schedule.origin}"
        return framework.rehearse(trainer, replace(asked, world_size=schedule.processes, origin=origin))

    def rehearse(
        self,
        trainer: object,
        *args: object,
        metric: Metric = None,
        world_size: int = 1,
        seconds_per_step: float | None = None,
        **kwargs: object,
    ) -> object:
        """Run a trainer's own loop over its real, full-length schedule, with stand-ins for what only computes.

        What is saved when, and what is deleted again, is that of the real run: the length of the data set, batches,
        accumulation, epochs, evaluations, limits, callbacks and every save stay as they are. The model, the optimizer, the
        samples and the results of evaluations do not.

        Args:
            trainer: such as a `transformers.Trainer`, with the settings of the real run.
            args: what else its own method is called with.
            metric: what evaluations answer: one value, one after the other, or a function of the step; for all metrics
                alike, or in a dict by the names under which they are logged. Always 1 by default.
            world_size: how many processes the real run has; batches and steps are counted as there.
            seconds_per_step: how long an optimizer step of the real run takes. The process's clock then stands still but for
                that, so that what is saved by the time is saved where the real run does; needs `pytest-ckpt[clock]`.

        Raises:
            InvalidArgument: no known framework rehearses such an object, or an argument makes no sense.
        """
        asked = self._rehearsing(metric, world_size, seconds_per_step)
        for framework in self._frameworks:
            if framework.drives(trainer) and isinstance(framework, Rehearses):
                return framework.rehearse(trainer, asked, *args, **kwargs)
        names = ", ".join(one.name for one in self._frameworks if isinstance(one, Rehearses)) or "none"
        message = (
            f"ckpt_job.rehearse got {type(trainer).__module__}.{type(trainer).__qualname__}, whose schedule no known framework "
            f"rehearses (these do: {names}). Train it with ckpt_job.train instead, or by itself."
        )
        raise InvalidArgument(message)

    def _rehearsing(self, metric: Metric, world_size: int, seconds_per_step: float | None = None) -> Rehearsing:
        """Return what is asked of a rehearsal, if it makes sense."""
        return Rehearsing(
            metric=metric,
            world_size=world_size,
            seconds_per_step=seconds_per_step,
            tell=self._on_rehearsal,
            reached=self._on_reached,
            give_up=self._on_give_up,
        )

    def enter(  # noqa: PLR0913 - all that an experiment decides
        self,
        directory: Path,
        *,
        resume_from: Path | None,
        is_baseline: bool,
        restarting: bool,
        changes: Mapping[str, object],
        on_ask: Callable[[str], None],
        on_step: Callable[[], None],
        on_score: Callable[[float], None],
        on_rehearsal: Callable[[Rehearsal], None],
        on_reached: Callable[[str], None],
        on_give_up: Callable[[], None],
        on_command: Callable[[], Mapping[str, str]],
    ) -> None:
        """Answer for one experiment from now on; called by the engine in the experiment's process."""
        self._dir = directory
        self._restarting = restarting
        self._changes = changes
        self._resume_from = None if resume_from is None else str(resume_from)
        self._is_baseline = is_baseline
        self._on_ask = on_ask
        self._on_step = on_step
        self._on_score = on_score
        self._on_rehearsal = on_rehearsal
        self._on_reached = on_reached
        self._on_give_up = on_give_up
        self._on_command = on_command

    @property
    def pattern(self) -> str | None:
        """What `layout` declared."""
        return self._pattern


def _nothing(*_: object) -> None:
    return None
