"""Transformers' `Trainer` and everything built on it: TRL, sentence-transformers, Axolotl, LLaMA-Factory."""

from __future__ import annotations

import functools
import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.frameworks.protocol import Found
from pytest_ckpt.records.run import FrameworkFacts
from pytest_ckpt.records.verdict import Advice

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_ckpt.frameworks.protocol import Observer
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Tree

_CHECKPOINT: Final = re.compile(r"^checkpoint-(\d+)$")
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
    "lr_scheduler_type",
)
#: Which file of a checkpoint restores a component, and what the Trainer does without it.
_FILES: Final = {
    "optimizer": "optimizer.pt",
    "lr": "scheduler.pt",
    "scheduler": "scheduler.pt",
    "rng": "rng_state.pth",
    "scaler": "scaler.pt",
}


class HFTrainer:
    """The adapter for `transformers.Trainer`."""

    name: Final = "transformers"
    module: Final = "transformers.trainer"

    # -- in the job's process ----------------------------------------------------------------------------------------

    def attach(self, module: ModuleType, observer: Observer) -> None:
        """Have every Trainer, whenever it was built, tell of its steps and saves while it trains."""
        original = module.Trainer.train
        callback_type = _callback_type(module, observer)

        @functools.wraps(original)
        def train(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            observer.expect_told()
            callback = callback_type(trainer)
            trainer.add_callback(callback)
            try:
                return original(trainer, *args, **kwargs)
            finally:
                trainer.remove_callback(callback)

        module.Trainer.train = train

    def drives(self, trainer: object) -> bool:
        """Say whether it is a Trainer or of a class derived from it."""
        return any(kind.__name__ == "Trainer" and kind.__module__ == self.module for kind in type(trainer).__mro__)

    def train(self, trainer: Any, resume_from: str | None, max_steps: int | None) -> object:
        """Call the trainer's own `train`."""
        if max_steps is not None and (trainer.args.max_steps <= 0 or trainer.args.max_steps > max_steps):
            trainer.args.max_steps = max_steps
        return trainer.train(resume_from_checkpoint=resume_from)

    # -- in the pytest process ---------------------------------------------------------------------------------------

    def find(self, tree: Tree, save_dir: str) -> tuple[Found, ...]:
        """Return the directories named `checkpoint-N` in the output directory."""
        found = []
        for entry in tree.children(save_dir):
            match = _CHECKPOINT.match(PurePosixPath(entry.path).name)
            if match and entry.kind == "dir":
                found.append(Found(path=entry.path, claimed=int(match[1])))
        return tuple(found)

    def expected_count(self, facts: FrameworkFacts, run: RunRecord) -> int | None:
        """Return how many checkpoints the settings promise to keep, for plain strategies without a best model."""
        settings = facts.settings
        if _is_set(settings, "metric_for_best_model") or _is_set(settings, "load_best_model_at_end"):
            return None
        promised = _promised_steps(facts, run)
        if promised is None:
            return None
        limit = settings.get("save_total_limit", "None")
        return len(promised) if limit in {"None", "0"} else min(int(limit), len(promised))

    def advise(self, component: str, checkpoint: Checkpoint, facts: FrameworkFacts) -> Advice:
        """Name the file that would have restored the component."""
        names = {PurePosixPath(path).name for path in checkpoint.files}
        if component in {"optimizer", "lr", "scheduler"} and _is_set(facts.settings, "save_only_model"):
            return Advice(
                cause=f"{checkpoint.path} was saved with save_only_model=True; transformers resumes without optimizer and "
                "scheduler and says nothing.",
                fix="save the optimizer (save_only_model=False), or do not promise to resume from this checkpoint.",
            )
        file = _FILES.get(component)
        if file is not None and file not in names and not _has_variant(file, names):
            return Advice(
                cause=f"{checkpoint.path} has no {file}; transformers resumes without it and says nothing.",
                fix=f"find out what removes or skips {file}, and save the whole checkpoint.",
            )
        if component == "data":
            return _advise_data(facts)
        return Advice()

    def advise_missing_final(self, facts: FrameworkFacts, run: RunRecord) -> Advice:
        """Explain by the save strategy why the last step is not saved."""
        settings = facts.settings
        strategy = settings.get("save_strategy", "")
        planned = facts.planned_steps or 0
        if "steps" in strategy and planned > run.last_step:
            return Advice(
                cause=f"training stopped at step {run.last_step} of {planned}; save_strategy='steps' saves every "
                f"{settings.get('save_steps')} steps and at the planned end only.",
                fix="set control.should_save in a callback's on_train_end or call trainer.save_state() and save the "
                "checkpoint when stopping early; or align the evaluation at which it stops with save_steps.",
            )
        if "steps" in strategy:
            return Advice(
                cause=f"save_steps={settings.get('save_steps')} does not divide the {run.last_step} steps, and transformers "
                f"{facts.version} did not save at the end.",
                fix="choose save_steps that divides the number of steps, or use transformers 4.42 or newer.",
            )
        if "best" in strategy:
            return Advice(
                cause="save_strategy='best' saves only when the metric improves; the last step did not improve it.",
                fix="add save_strategy='steps' or save the last state with trainer.save_model() after train().",
            )
        return Advice()


def _callback_type(module: ModuleType, observer: Observer) -> Any:
    """Return a callback class that tells the observer; it needs the framework's base class, so it is made here."""

    class Teller(module.TrainerCallback):  # type: ignore[name-defined,misc]
        """Tells of steps and saves."""

        def __init__(self, trainer: Any) -> None:
            self._trainer = trainer

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del control
            observer.framework(_facts(args, state, observer))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, control
            observer.end_step(claimed=int(state.global_step))

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, state, control
            observer.look("save")

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            del args, state, control
            observer.look("train_end")

    return Teller


def _facts(args: Any, state: Any, observer: Observer) -> FrameworkFacts:
    import transformers  # the job has imported it

    settings = {name: _text(getattr(args, name)) for name in _SETTINGS if hasattr(args, name)}
    settings["save_steps"] = _text(getattr(state, "save_steps", None) or args.save_steps)
    return FrameworkFacts(
        name=HFTrainer.name,
        version=transformers.__version__,
        planned_steps=int(state.max_steps),
        settings=settings,
        save_dir=observer.relative(args.output_dir),
    )


def _text(value: object) -> str:
    return str(getattr(value, "value", value))


def _is_set(settings: Any, name: str) -> bool:
    return settings.get(name, "None") not in {"None", "False", ""}


def _promised_steps(facts: FrameworkFacts, run: RunRecord) -> set[int] | None:
    """Return the steps that the strategy promises to save, the last one included."""
    strategy = facts.settings.get("save_strategy", "")
    if strategy == "no":
        return set()
    if strategy == "steps":
        interval = float(facts.settings["save_steps"])
        planned = facts.planned_steps or run.last_step
        every = math.ceil(planned * interval) if interval < 1 else int(interval)
        steps = set(range(every, run.last_step + 1, every))
        return steps | {run.last_step} if run.last_step == planned else steps
    return None


def _has_variant(file: str, names: set[str]) -> bool:
    """Say whether the file exists per rank or under a sharding plugin's name."""
    stem = file.split(".", 1)[0]
    return any(name.startswith((f"{stem}_", f"{stem}.")) for name in names)


def _advise_data(facts: FrameworkFacts) -> Advice:
    settings = facts.settings
    if _is_set(settings, "ignore_data_skip"):
        return Advice(
            cause="ignore_data_skip=True starts the data from the beginning.", fix="leave ignore_data_skip at False."
        )
    if _is_set(settings, "group_by_length") or settings.get("train_sampling_strategy") == "group_by_length":
        return Advice(
            cause="the length-grouped sampler draws from the global random generator, which transformers restores only after the "
            "sampler of the interrupted epoch has drawn.",
            fix="give the sampler a generator of its own, or resume at epoch boundaries only.",
        )
    return Advice(
        cause="transformers skips batches by iterating over the data set again; a set that is not map-style, or whose order "
        "comes from the process's random generators, does not come back to the same place.",
        fix="make the data set's order depend on a stored seed and epoch only.",
    )
