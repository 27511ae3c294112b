"""What a Trainer's settings promise to save: after which steps, and which files make a checkpoint whole."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.frameworks.hf_advice import is_set, version_of
from pytest_ckpt.records.run import BestModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.frameworks.protocol import Observer
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import FrameworkFacts, RunRecord

CHECKPOINT: Final = re.compile(r"^checkpoint-(\d+)$")
#: How the weights begin to be called, whatever wrote them: one file, shards, an adapter, FSDP or DeepSpeed.
_WEIGHTS: Final = ("model.", "model-", "pytorch_model", "adapter_model.", "global_step")
_SHARD: Final = re.compile(r"-\d+-of-\d+(?=\.\w+$)")


# -- the schedule ------------------------------------------------------------------------------------------------------


def promised_steps(facts: FrameworkFacts, run: RunRecord) -> frozenset[int] | None:
    """Return the steps that the strategy promises to save, the last one of the schedule included."""
    strategy = facts.settings.get("save_strategy", "")
    if strategy == "no":
        return frozenset()
    interval = _interval(strategy, facts, run)
    if not interval or not _counts_once(run):
        return None
    numbers = {step.claimed or step.index: step.index for step in run.steps}
    steps = {index for number, index in numbers.items() if number % interval == 0}
    if strategy == "epoch" or max(numbers, default=0) == (facts.planned_steps or run.last_step):
        steps.add(run.last_step)
    # What a callback of the job's own asks for is meant to be saved, too.
    return frozenset(steps | set(run.saved_steps) if facts.settings.get("callbacks of the job") else steps)


def _interval(strategy: str, facts: FrameworkFacts, run: RunRecord) -> int | None:
    """Return after every how many steps is saved."""
    if strategy == "steps":
        given = float(facts.settings["save_steps"])
        return math.ceil((facts.planned_steps or run.last_step) * given) if given < 1 else int(given)
    return _epoch(facts) if strategy == "epoch" else None


def _epoch(facts: FrameworkFacts) -> int | None:
    """Return how many steps an epoch has; before 4.47 one may take in a batch of the next."""
    batches, together = (int(facts.settings.get(name) or 0) for name in ("batches", "gradient_accumulation_steps"))
    if not batches or not together or (batches % together and version_of(facts.version) < (4, 47)):
        return None
    return math.ceil(batches / together)


def _counts_once(run: RunRecord) -> bool:
    """Say whether the steps are numbered on and on, as they are not where several trainings share a directory."""
    numbers = [step.claimed or step.index for step in run.steps]
    return all(later > earlier for earlier, later in itertools.pairwise(numbers))


# -- the files ---------------------------------------------------------------------------------------------------------


def required_files(checkpoint: Checkpoint, facts: FrameworkFacts) -> tuple[str, ...]:
    """Return what a checkpoint needs by the settings in force; of several forms, the one that is there."""
    if not CHECKPOINT.match(PurePosixPath(checkpoint.path).name):
        return ()
    names = {path.removeprefix(f"{checkpoint.path}/").split("/", 1)[0] for path in checkpoint.files}
    required = [*_model(checkpoint, names, facts), "trainer_state.json"]
    if not is_set(facts.settings, "save_only_model"):
        required += _training_state(names, facts)
    return tuple(required)


def _model(checkpoint: Checkpoint, names: set[str], facts: FrameworkFacts) -> Iterator[str]:
    """Yield the files by which the model is loaded; a `_save` of the job's own may write others."""
    adapter = facts.settings.get("model") == "PeftModel"
    known = checkpoint.content is not None and checkpoint.content.matched > 0
    if not known and not any(name.startswith(_WEIGHTS) for name in names):
        yield "adapter_model.safetensors" if adapter else "model.safetensors"
    yield from sorted({_SHARD.sub("", name) + ".index.json" for name in names if _is_shard(name)})
    if is_set(facts.settings, "own way of saving"):
        return
    yield "training_args.bin"
    if adapter:
        yield "adapter_config.json"
    elif facts.settings.get("model") == "PreTrainedModel":
        yield "config.json"


def _is_shard(name: str) -> bool:
    return name.startswith(_WEIGHTS) and _SHARD.search(name) is not None


def _training_state(names: set[str], facts: FrameworkFacts) -> Iterator[str]:
    """Yield the files from which training goes on; DeepSpeed keeps most of them in a directory of its own."""
    if not any(name.startswith("global_step") for name in names):
        if not any(name.startswith(("optimizer_", "optimizer.")) for name in names):
            yield "optimizer.pt"
        yield "scheduler.pt"
    yield "rng_state*.pth"
    if is_set(facts.settings, "scaler"):
        yield "scaler.pt"


# -- the best ----------------------------------------------------------------------------------------------------------


def best(args: Any, state: Any, observer: Observer) -> BestModel | None:
    """Return the evaluations so far, and which checkpoint counts as the best of them."""
    if not args.metric_for_best_model:
        return None
    name = "eval_" + args.metric_for_best_model.removeprefix("eval_")
    path = state.best_model_checkpoint
    return BestModel(
        metric=name,
        mode="max" if args.greater_is_better else "min",
        scores={int(entry["step"]): float(entry[name]) for entry in state.log_history if name in entry},
        path=None if path is None else observer.relative(path),
        loads=bool(args.load_best_model_at_end),
    )
