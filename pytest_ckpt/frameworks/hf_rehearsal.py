"""The Trainer's own loop over its whole schedule, with stand-ins for the model, the optimizer, the batches and evaluation.

The data set, the samplers, the arguments, the callbacks, the choice of the best model and every save are the real ones.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.records.rehearsal import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.frameworks.protocol import Rehearsing
    from pytest_ckpt.frameworks.stand_in import Watch
    from pytest_ckpt.frameworks.stand_in_clock import Clock
    from pytest_ckpt.frameworks.stand_in_metric import Script

#: Methods that only compute: they are not called, whoever has overridden them.
_COMPUTES: Final = ("compute_loss", "prediction_step", "evaluation_loop", "create_optimizer", "floating_point_ops")
#: What a method that only computes has no use for.
_DECIDES: Final = frozenset(
    {
        *("should_save", "should_training_stop", "should_epoch_stop", "should_evaluate", "control"),
        *("save_model", "save_state", "_save_checkpoint", "save_pretrained", "save_checkpoint"),
    }
)
#: Arguments that only computing heeds, and the value that switches each of them off.
_OFF: Final[dict[str, object]] = {
    "max_grad_norm": 0.0,
    "gradient_checkpointing": False,
    "activation_checkpointing": False,
    "use_liger_kernel": False,
    "neftune_noise_alpha": None,
    "torch_compile": False,
    "auto_find_batch_size": False,
    "skip_memory_metrics": True,
    "debug": [],
    "disable_tqdm": True,
}


def rehearse(trainer: Any, asked: Rehearsing) -> Any:
    """Run the trainer's `train` over its whole schedule without the compute, and return what it returns."""
    from pytest_ckpt.frameworks.stand_in import Watch
    from pytest_ckpt.frameworks.stand_in_clock import Clock
    from pytest_ckpt.frameworks.stand_in_metric import Script

    watch, script, clock = Watch(asked), Script(asked.metric), Clock(asked.seconds_per_step)
    replaced = ["the model", "the optimizer", "the samples", "evaluation"]
    replaced += [f"{name} of {type(trainer).__name__}" for name in _COMPUTES if _is_overridden(trainer, name)]
    metric = str(script) if _evaluates(trainer) else ""
    for reached in _deciding(trainer):
        asked.reached(reached)
    asked.tell(
        Rehearsal(
            replaced=tuple(replaced),
            world_size=asked.world_size,
            metric=metric,
            origin=asked.origin,
            seconds_per_step=asked.seconds_per_step or 0.0,
        )
    )
    _replace_model(trainer, watch, clock)
    _replace_data(trainer, watch)
    _note_saving(trainer, watch)
    result = None
    with _one_of(asked.world_size), _without_compute(trainer, script), clock.running(), watch.errors():
        result = trainer.train()
    trainer.evaluate = functools.partial(_answer, trainer, script)  # a job may evaluate once more
    return result


def _evaluates(trainer: Any) -> bool:
    strategy = getattr(trainer.args, "eval_strategy", None) or trainer.args.evaluation_strategy  # its name before 4.41
    return str(getattr(strategy, "value", strategy)) != "no"


# -- the stand-ins -----------------------------------------------------------------------------------------------------


@contextmanager
def _one_of(world_size: int) -> Iterator[None]:
    """Have accelerate divide the data as among so many processes, of which this is the first."""
    state = sys.modules["accelerate.state"]
    kinds = [kind._shared_state for kind in (state.PartialState, state.AcceleratorState)]  # noqa: SLF001 - no public way
    before = [shared.get("num_processes", 1) for shared in kinds]
    for shared in kinds:
        shared["num_processes"] = max(world_size, shared.get("num_processes", 1))
    try:
        yield
    finally:
        for shared, number in zip(kinds, before, strict=True):
            shared["num_processes"] = number


def _replace_model(trainer: Any, watch: Watch, clock: Clock) -> None:
    from pytest_ckpt.frameworks.stand_in import CountingOptimizer, StandIn

    with suppress(AttributeError):  # which columns of the data set the model takes; asked for when the loader is made
        trainer._set_signature_columns_if_needed()  # noqa: SLF001 - there is no public way
    model = StandIn(trainer.model, watch)
    for name, value in _OFF.items():
        if hasattr(trainer.args, name):
            setattr(trainer.args, name, value)
    trainer.neftune_noise_alpha = None
    trainer.model = trainer.model_wrapped = model
    trainer.model_init = None
    trainer.optimizer = CountingOptimizer(list(model.parameters()), lr=trainer.args.learning_rate, clock=clock)
    trainer.create_optimizer = lambda *_, **__: trainer.optimizer
    trainer._get_grad_norm = lambda *_, **__: 0.0  # noqa: SLF001 - there is none
    trainer.callback_handler.model = model


def _replace_data(trainer: Any, watch: Watch) -> None:
    from pytest_ckpt.frameworks.stand_in_data import without_reading

    make_loader = trainer.get_train_dataloader

    @functools.wraps(make_loader)
    def get_train_dataloader(*args: Any, **kwargs: Any) -> Any:
        loader = make_loader(*args, **kwargs)
        without_reading(loader, watch)
        return loader

    trainer.get_train_dataloader = get_train_dataloader
    for name in ("processing_class", "tokenizer"):  # would be saved with each checkpoint
        if name in vars(trainer):
            setattr(trainer, name, None)
    trainer.data_collator = _collated


def _collated(_: object) -> dict[str, Any]:
    return {}


@contextmanager
def _without_compute(ours: Any, script: Script) -> Iterator[None]:
    """Replace what the class Trainer itself computes, so that what a derived class adds to it is called as ever."""
    import torch

    base, loss = sys.modules["transformers.trainer"].Trainer, torch.ones(())
    originals = {"training_step": base.training_step, "evaluate": base.evaluate}
    imports: Any = sys.modules["accelerate.utils.imports"]
    is_available = imports._is_package_available  # noqa: SLF001 - the paths are searched for packages twice a step

    @functools.wraps(base.training_step)
    def training_step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        return loss if trainer is ours else originals["training_step"](trainer, *args, **kwargs)

    @functools.wraps(base.evaluate)
    def evaluate(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer is ours:
            return _answer(trainer, script, *args, **kwargs)
        return originals["evaluate"](trainer, *args, **kwargs)

    base.training_step, base.evaluate = training_step, evaluate
    imports._is_package_available = functools.cache(is_available)  # noqa: SLF001
    try:
        yield
    finally:
        imports._is_package_available = is_available  # noqa: SLF001
        for name, original in originals.items():
            setattr(base, name, original)


def _note_saving(trainer: Any, watch: Watch) -> None:
    """Let everything be read while the trainer saves, or loads what was saved."""
    began = time.time()

    def around(original: Any) -> Any:
        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            with watch.saving():
                answer = original(*args, **kwargs)
            _date(trainer, began)
            return answer

        return call

    for name in ("_save_checkpoint", "save_model", "_load_best_model"):
        setattr(trainer, name, around(getattr(trainer, name)))


def _date(trainer: Any, began: float) -> None:
    """Date the checkpoint of this step as if a step took a second: rotation goes by the time where that tells them apart."""
    folder = Path(trainer.args.output_dir, f"checkpoint-{trainer.state.global_step}")
    if folder.is_dir():
        saved = began - max(trainer.state.max_steps, trainer.state.global_step) + trainer.state.global_step - 1
        os.utime(folder, (saved, saved))


def _answer(
    trainer: Any, script: Script, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
) -> dict[str, float]:
    """Evaluate as the Trainer does, with what the script says in the place of a result."""
    data = trainer.eval_dataset if eval_dataset is None else eval_dataset
    prefixes = [f"{metric_key_prefix}_{name}" for name in data] if isinstance(data, dict) else [metric_key_prefix]
    names = [f"{prefix}_loss" for prefix in prefixes]
    best = trainer.args.metric_for_best_model
    if best and metric_key_prefix == "eval":
        names.append("eval_" + best.removeprefix("eval_"))
    del ignore_keys
    metrics = script.answer(trainer.state.global_step, names)
    trainer.log(metrics)
    trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


# -- what a rehearsal can't stand for ----------------------------------------------------------------------------------


def _is_overridden(trainer: Any, name: str) -> bool:
    base = sys.modules["transformers.trainer"].Trainer
    return inspect.unwrap(getattr(type(trainer), name, None) or base) is not inspect.unwrap(
        getattr(base, name, None) or base
    )


def _deciding(trainer: Any) -> Iterator[str]:
    """Yield the methods that are not called and do more than compute: they decide what is saved."""
    for name in _COMPUTES:
        code = getattr(inspect.unwrap(getattr(type(trainer), name, None) or rehearse), "__code__", None)
        used = (
            sorted(_DECIDES.intersection(code.co_names)) if code is not None and _is_overridden(trainer, name) else []
        )
        if used:
            yield f"{type(trainer).__name__}.{name} uses {used[0]}, and is not called"
