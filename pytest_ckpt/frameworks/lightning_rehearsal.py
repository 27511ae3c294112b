"""Lightning's own loop over its whole schedule, with stand-ins for the steps of the module, its optimizer and the batches.

The first batch of each epoch is real: from a real call of `training_step` and of `validation_step` it is learned what they
log, which decides when a ModelCheckpoint with a monitor can save. For the others the same is logged with the values asked for.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.frameworks.lightning_manual import REAL_BATCHES, Updates, counts, schedulers
from pytest_ckpt.records.rehearsal import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_ckpt.frameworks.protocol import Rehearsing
    from pytest_ckpt.frameworks.stand_in import Watch
    from pytest_ckpt.frameworks.stand_in_clock import Clock
    from pytest_ckpt.frameworks.stand_in_metric import Script

_STEPS: Final = ("training_step", "validation_step")
_REPLACED: Final = ("the steps of the model", "the optimizer", "the samples", "the values that are logged")


def rehearse(trainer: Any, asked: Rehearsing, *args: Any, **kwargs: Any) -> Any:
    """Run the trainer's `fit` over its whole schedule without the compute, and return the trainer."""
    from pytest_ckpt.frameworks.stand_in import Watch
    from pytest_ckpt.frameworks.stand_in_clock import Clock
    from pytest_ckpt.frameworks.stand_in_metric import Script

    watch, script, clock = Watch(asked), Script(asked.metric), Clock(asked.seconds_per_step)
    given, *data = [kwargs.pop("model"), *args] if "model" in kwargs else args
    module = getattr(given, "_orig_mod", given)  # steps that torch.compile wraps would be traced
    asked.tell(
        Rehearsal(
            replaced=_REPLACED,
            world_size=asked.world_size,
            metric=str(script),
            origin=asked.origin,
            seconds_per_step=asked.seconds_per_step or 0.0,
        )
    )
    if trainer.progress_bar_callback is not None:
        trainer.progress_bar_callback.disable()
    _note_saving(trainer, watch)
    with (
        _stand_in_for(module, _Parts(type(module), watch, script, clock, asked)),
        _light_loaders(watch, 1 if module.automatic_optimization else REAL_BATCHES),
        _one_of(trainer, asked.world_size),
        clock.running(),
        watch.errors(),
    ):
        trainer.fit(module, *data, **kwargs)
    return trainer


# -- the module --------------------------------------------------------------------------------------------------------


@contextmanager
def _stand_in_for(module: Any, parts: _Parts) -> Iterator[None]:
    """Give a module another class, whose steps log what the real ones log and compute nothing."""
    kind = type(module)
    own = {name: _step(name) for name in _STEPS if _defines(kind, name)}
    module.__class__ = type(kind.__name__, (_Rehearsed, kind), {**own, "_rehearsal": parts})
    try:
        yield
    finally:
        module.__class__ = kind


class _Parts:
    """What a rehearsed module works with."""

    def __init__(self, kind: Any, watch: Watch, script: Script, clock: Clock, asked: Rehearsing) -> None:
        import torch

        from pytest_ckpt.frameworks.stand_in import StandIn

        self.kind = kind
        self.watch = watch
        self.clock, self.no_clock = clock, type(clock)(None)
        self.updates = Updates(asked.reached, kind.__name__)
        self.steps = _Steps(kind, script, self.updates)
        self.stand_in = StandIn(torch.nn.Module(), watch)
        self.schedulers = 0
        self.loss = torch.ones(())
        self.of_weights = torch.nn.Module, torch.Tensor

    def optimizer(self, number: int = 0) -> Any:
        """Return a stand-in for an optimizer, which tells of its steps."""
        from pytest_ckpt.frameworks.stand_in import CountingOptimizer

        clock = self.clock if number == 0 else self.no_clock  # a step of several optimizers takes its time once
        made = CountingOptimizer(list(self.stand_in.parameters()), lr=1.0, clock=clock)
        made.register_step_post_hook(lambda *_: self.updates.made(number))
        return made


class _Rehearsed:
    """Goes before the class of a module."""

    _rehearsal: _Parts

    def configure_optimizers(self) -> Any:
        parts: Any = self._rehearsal
        if self.automatic_optimization:
            return parts.optimizer()
        with parts.watch.saving():  # only how many there are is asked for
            optimizers, parts.schedulers = counts(parts.kind.configure_optimizers(self))
        return [parts.optimizer(number) for number in range(optimizers)]

    def lr_schedulers(self) -> Any:
        return schedulers(self._rehearsal.schedulers)

    def backward(self, *_: Any, **__: Any) -> None:
        """Compute nothing."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self._rehearsal.watch.note("reads the state dict of the model")
        return self._rehearsal.stand_in.state_dict(*args, **kwargs)

    def parameters(self, *args: Any, **kwargs: Any) -> Any:
        self._rehearsal.watch.note("reads the parameters of the model")
        return self._rehearsal.kind.parameters(self, *args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        self._rehearsal.watch.note("reads the parameters of the model")
        return self._rehearsal.kind.named_parameters(self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        parts = self._rehearsal
        value = parts.kind.__getattr__(self, name)
        if isinstance(value, parts.of_weights) and not hasattr(value, "compute"):  # as a metric has
            parts.watch.note(f"reads {name} of the model")
        return value

    def log(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:
        del value
        self._rehearsal.steps.note(name, args, kwargs)
        self._rehearsal.kind.log(self, name, self._rehearsal.steps.value(self.trainer, name), *args, **kwargs)


def _step(name: str) -> Callable[..., Any]:
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        parts = self._rehearsal
        with parts.watch.saving():  # nothing that it reads decides on a save
            parts.steps.run(self, name, *args, **kwargs)
        return parts.loss

    return step


def _defines(kind: Any, name: str) -> bool:
    """Say whether a class has a method of its own: Lightning goes by that."""
    owner = next(base for base in kind.__mro__ if name in vars(base))
    return str(owner.__name__) != "LightningModule"


class _Steps:
    """Calls a step of a module where there is a real batch, and logs the same for the others."""

    def __init__(self, kind: Any, script: Script, updates: Updates) -> None:
        from pytest_ckpt.frameworks.stand_in_data import is_real

        self._is_real = is_real
        self._kind = kind
        self._updates = updates
        self._script = script
        self._logged: dict[str, list[tuple[str, tuple[Any, ...], dict[str, Any]]]] = {}
        self._learning = ""

    def run(self, module: Any, name: str, *args: Any, **kwargs: Any) -> None:
        """Call the real step, or log what it logged."""
        by_hand = name == "training_step" and not module.automatic_optimization
        if not all(map(self._is_real, (*args, *kwargs.values()))):
            for metric, positional, given in self._logged.get(name, ()):
                module.log(metric, None, *positional, **{"batch_size": 1, **given})
            if by_hand:
                self._updates.repeat(module)
            return
        self._logged[name], self._learning = [], name
        try:
            with self._updates.learning() if by_hand else nullcontext():
                getattr(self._kind, name)(module, *args, **kwargs)
        finally:
            self._learning = ""

    def note(self, metric: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what a step logs, while that is being learned."""
        if self._learning:
            self._logged[self._learning].append((metric, args, kwargs))

    def value(self, trainer: Any, name: str) -> float:
        """Return what is logged in the place of the real value."""
        if trainer.sanity_checking:
            return 1.0
        if trainer.validating:
            return self._script.answer(trainer.global_step, [name])[name]
        return self._script.in_training(trainer.global_step + 1, name)  # of the step that it belongs to


# -- the loop ----------------------------------------------------------------------------------------------------------


@contextmanager
def _light_loaders(watch: Watch, real_batches: int) -> Iterator[None]:
    """Have each loader, whoever makes it, read so many batches of an epoch and no more."""
    from torch.utils.data import DataLoader

    from pytest_ckpt.frameworks.stand_in_data import begin_epoch, without_reading

    original = DataLoader.__iter__

    def iterate(loader: Any) -> Any:
        if not begin_epoch(loader):
            without_reading(loader, watch, real_batches=real_batches)
        return original(loader)

    DataLoader.__iter__ = iterate  # type: ignore[method-assign]
    try:
        yield
    finally:
        DataLoader.__iter__ = original  # type: ignore[method-assign]


@contextmanager
def _one_of(trainer: Any, world_size: int) -> Iterator[None]:
    """Have Lightning divide the data as among so many processes, of which this is the first."""
    if world_size == 1:
        yield
        return
    connector = trainer._data_connector  # noqa: SLF001 - there is no public way
    base: Any = next(base for base in type(trainer).__mro__ if "distributed_sampler_kwargs" in vars(base))
    original = vars(base)["distributed_sampler_kwargs"]
    connector._requires_distributed_sampler = lambda *_: True  # noqa: SLF001
    base.distributed_sampler_kwargs = property(lambda _: {"num_replicas": world_size, "rank": 0})
    try:
        yield
    finally:
        base.distributed_sampler_kwargs = original
        del connector._requires_distributed_sampler  # noqa: SLF001


def _note_saving(trainer: Any, watch: Watch) -> None:
    """Let everything be read while the trainer saves."""
    original = trainer.save_checkpoint

    def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
        with watch.saving():
            return original(*args, **kwargs)

    trainer.save_checkpoint = save_checkpoint
