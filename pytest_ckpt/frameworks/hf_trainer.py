"""Transformers' `Trainer` and everything built on it: TRL, sentence-transformers, Axolotl, LLaMA-Factory."""

from __future__ import annotations

import functools
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.frameworks import hf_advice, hf_changes, hf_loading, hf_saving
from pytest_ckpt.frameworks.protocol import Found
from pytest_ckpt.records.run import FrameworkFacts

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_ckpt.configs.schedule import Schedule
    from pytest_ckpt.frameworks.protocol import Observer, Rehearsing, Start
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Tree
    from pytest_ckpt.records.verdict import Advice

_SETTINGS: Final = (
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "save_only_model",
    "load_best_model_at_end",
    "metric_for_best_model",
    "eval_strategy",
    "evaluation_strategy",
    "eval_steps",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "group_by_length",
    "train_sampling_strategy",
    "ignore_data_skip",
    "restore_callback_states_from_checkpoint",
    "lr_scheduler_type",
)


class HFTrainer:
    """The adapter for `transformers.Trainer`."""

    name: Final = "transformers"
    module: Final = "transformers.trainer"

    # -- in the job's process ----------------------------------------------------------------------------------------

    def attach(self, module: ModuleType, observer: Observer) -> None:
        """Have every Trainer, whenever it was built, tell of its steps and saves while it trains."""
        original = module.Trainer.train
        built_here = hf_changes.built_from_now_on(module, observer)
        callback_type = _callback_type(module, observer)

        @functools.wraps(original)
        def train(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            if trainer not in built_here:
                module.set_seed(trainer.args.seed)  # as its constructor did in the process it was built in
            observer.expect_told()
            hf_changes.change_built(trainer, observer.changes)
            hf_loading.load_instead(trainer, observer)
            callback = callback_type(trainer)
            trainer.add_callback(callback)
            try:
                return original(trainer, *args, **kwargs)
            finally:
                trainer.remove_callback(callback)

        module.Trainer.train = train
        _look_before_rotation(module, observer)

    def drives(self, trainer: object) -> bool:
        """Say whether it is a Trainer or of a class derived from it."""
        return any(kind.__name__ == "Trainer" and kind.__module__ == self.module for kind in type(trainer).__mro__)

    def train(self, trainer: Any, resume_from: Start, max_steps: int | None, *args: Any, **kwargs: Any) -> object:
        """Call the trainer's own `train`."""
        if max_steps is not None and (trainer.args.max_steps <= 0 or trainer.args.max_steps > max_steps):
            trainer.args.max_steps = max_steps
        return trainer.train(resume_from, *args, **kwargs)

    def rehearse(self, trainer: Any, asked: Rehearsing, *args: object, **kwargs: object) -> object:
        """Call the trainer's own `train` with stand-ins for what only computes."""
        from pytest_ckpt.frameworks import hf_rehearsal  # few jobs need it

        if args or kwargs:
            message = f"ckpt_job.rehearse(trainer) of transformers takes no further arguments; got {args} {kwargs}"
            raise InvalidArgument(message)
        return hf_rehearsal.rehearse(trainer, asked)

    def configured(self, schedule: Schedule, output_dir: str) -> object:
        """Return a Trainer with the schedule of a configuration file."""
        from pytest_ckpt.frameworks import hf_configured

        return hf_configured.configured(schedule, output_dir)

    # -- in the pytest process ---------------------------------------------------------------------------------------

    def warm_up(self, module: ModuleType) -> None:
        """Compile the patterns by which release 5 renames weights; each process that saves would, for a tenth of a second."""
        del module
        mapping = sys.modules.get("transformers.conversion_mapping")
        if mapping is not None and hasattr(mapping, "get_checkpoint_conversion_mapping"):
            mapping.get_checkpoint_conversion_mapping("llama")

    def find(self, tree: Tree, save_dir: str) -> tuple[Found, ...]:
        """Return the directories named `checkpoint-N` in the output directory."""
        found = []
        for entry in tree.children(save_dir):
            match = hf_saving.CHECKPOINT.match(PurePosixPath(entry.path).name)
            if match and entry.kind == "dir":
                found.append(Found(path=entry.path, claimed=int(match[1])))
        return tuple(found)

    def expected_count(self, facts: FrameworkFacts, run: RunRecord) -> int | None:
        """Return how many checkpoints the settings promise to keep, for plain strategies without a best model."""
        settings = facts.settings
        if hf_advice.is_set(settings, "metric_for_best_model") or hf_advice.is_set(settings, "load_best_model_at_end"):
            return None
        promised = self.promised_steps(facts, run)
        return None if promised is None else min(facts.keep or len(promised), len(promised))

    def promised_steps(self, facts: FrameworkFacts, run: RunRecord) -> frozenset[int] | None:
        """Return the steps that save_strategy has saved; None where a metric decides."""
        return hf_saving.promised_steps(facts, run)

    def required_files(self, checkpoint: Checkpoint, facts: FrameworkFacts) -> tuple[str, ...]:
        """Return the files that the Trainer writes by its settings."""
        return hf_saving.required_files(checkpoint, facts)

    def advise(self, component: str, checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
        """Name the file, the setting or the release that keeps the component from being restored."""
        return hf_advice.component(component, checkpoint, facts)

    def advise_missing_final(self, facts: FrameworkFacts, run: RunRecord) -> Advice:
        """Explain by the settings in force why the last step is not saved, or not there any more."""
        return hf_advice.missing_final(facts, run)


def _look_before_rotation(module: ModuleType, observer: Observer) -> None:
    """Have the directory looked at before a limit deletes from it: what goes may be what was written just now."""
    owner = module.Trainer if hasattr(module.Trainer, "_rotate_checkpoints") else module
    name = "rotate_checkpoints" if owner is module else "_rotate_checkpoints"
    original = getattr(owner, name, None)
    if original is None:
        return

    @functools.wraps(original)
    def rotate(*args: Any, **kwargs: Any) -> Any:
        settings = getattr(args[0], "args", None) if args else None
        if kwargs.get("save_total_limit") or getattr(settings, "save_total_limit", None):
            observer.look("save")
        return original(*args, **kwargs)

    setattr(owner, name, rotate)


def _callback_type(module: ModuleType, observer: Observer) -> Any:
    """Return a callback class that tells the observer; it needs the framework's base class, so it is made here."""

    class Teller(module.TrainerCallback):  # type: ignore[name-defined,misc]
        """Tells of steps and saves."""

        def __init__(self, trainer: Any) -> None:
            self._trainer = trainer

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del control
            observer.framework(_facts(self._trainer, args, state, observer))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            observer.end_step(claimed=int(state.global_step))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, state, control
            observer.look("save")

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del control
            observer.framework(_facts(self._trainer, args, state, observer))
            observer.look("train_end")

    return Teller


def _facts(trainer: Any, args: Any, state: Any, observer: Observer) -> FrameworkFacts:
    import transformers  # the job has imported it
    from torch.utils.data import IterableDataset

    settings = {name: _text(getattr(args, name)) for name in _SETTINGS if hasattr(args, name)}
    settings["save_steps"] = _text(getattr(state, "save_steps", None) or args.save_steps)
    settings["save_steps asked for"] = _text(args.save_steps)
    settings["callbacks"] = " ".join(type(callback).__name__ for callback in trainer.callback_handler.callbacks)
    settings["iterable data"] = _text(isinstance(trainer.train_dataset, IterableDataset))
    loader = trainer.callback_handler.train_dataloader
    settings["batches"] = "" if settings["iterable data"] == "True" or loader is None else _text(len(loader))
    settings["accelerate version"] = getattr(sys.modules.get("accelerate"), "__version__", "")
    settings.update(_ways_of_saving(trainer))
    limit, best = args.save_total_limit, args.metric_for_best_model or args.load_best_model_at_end
    return FrameworkFacts(
        name=HFTrainer.name,
        version=transformers.__version__,
        planned_steps=int(state.max_steps),
        settings=settings,
        save_dir=observer.relative(args.output_dir),
        keep=limit if limit and limit > 0 else None,
        keeps_best=bool(best),
        best=hf_saving.best(args, state, observer),
        loader=hf_loading.loader_of(trainer),
        unread=hf_loading.UNREAD,
        allowed=hf_loading.allowed_globals(),
    )


def _ways_of_saving(trainer: Any) -> dict[str, str]:
    """Return what decides on the files of a checkpoint and on when they are saved, beside the arguments."""
    kinds = {kind.__name__ for kind in type(trainer.model).__mro__}
    callbacks = [type(c) for c in trainer.callback_handler.callbacks if not _is_foreign(type(c))]
    scaler = getattr(trainer.accelerator, "scaler", None) if hasattr(trainer, "_save_scaler") else None
    return {
        "model": next((name for name in ("PeftModel", "PreTrainedModel") if name in kinds), ""),
        "callbacks of the job": " ".join(kind.__name__ for kind in callbacks),
        "own way of saving": _text(any(not _is_foreign(_owner(trainer, name)) for name in ("_save", "save_model"))),
        "scaler": _text(scaler is not None),
    }


def _is_foreign(kind: type) -> bool:
    """Say whether a class is of transformers or of this package, and not of the job."""
    return kind.__module__.split(".", 1)[0] in {"transformers", "pytest_ckpt"}


def _owner(trainer: Any, name: str) -> type:
    """Return the class that a method of a trainer comes from."""
    return next((kind for kind in type(trainer).__mro__ if name in vars(kind)), object)


def _text(value: object) -> str:
    return str(getattr(value, "value", value))
