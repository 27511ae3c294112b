"""What Axolotl's own code makes of a configuration, where it is installed: its validation, its defaults and its trainer builder.

Nothing is loaded but Axolotl itself: neither the model nor the data that the configuration names.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from pytest_ckpt.configs.schedule import DECIDING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Settings that decide how long is trained, when is evaluated, and what is saved. All others are left out: they may need
#: devices, models and data that are not here.
_DECIDE = frozenset(
    {
        *("micro_batch_size", "gradient_accumulation_steps", "batch_size", "eval_batch_size", "dataloader_drop_last"),
        *("num_epochs", "max_steps", "ddp", "tensor_parallel_size", "context_parallel_size", "learning_rate"),
        *("saves_per_epoch", "save_steps", "save_strategy", "save_total_limit", "save_only_model"),
        *("evals_per_epoch", "eval_steps", "eval_strategy", "val_set_size", "test_datasets"),
        *("load_best_model_at_end", "early_stopping_patience", "metric_for_best_model", "greater_is_better"),
        *("base_model", "datasets"),
    }
)


class _Built(Exception):
    """Carries the arguments that the builder was about to make a trainer with."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = arguments


def resolve(values: Mapping[str, Any], *, train_len: int, held_out: int, world_size: int) -> dict[str, Any]:
    """Return the arguments that Axolotl gives its trainer, as far as they decide on steps and saves.

    Args:
        values: of the configuration file.
        train_len: samples to train on.
        held_out: samples to evaluate on.
        world_size: processes of the real run.

    Raises:
        Exception: whatever Axolotl says of such a configuration.
    """
    from axolotl.core.builders.causal import HFCausalTrainerBuilder
    from axolotl.utils import config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.trainer import calculate_total_num_steps

    class Builder(HFCausalTrainerBuilder):  # type: ignore[misc]
        def hook_pre_create_training_args(self, training_arguments_kwargs: dict[str, Any]) -> dict[str, Any]:
            raise _Built(training_arguments_kwargs)

    given = {name: value for name, value in values.items() if name in _DECIDE}
    cfg = config.validate_config(DictDefault(given))
    with (
        mock.patch.object(config, "load_model_config", _Configuration),
        mock.patch.dict("os.environ", {"WORLD_SIZE": str(world_size), "AXOLOTL_DO_NOT_TRACK": "1"}),
    ):
        config.normalize_config(cfg)
    cfg.total_num_tokens = cfg.total_supervised_tokens = 1  # else it would count them
    cfg.sample_packing = False  # what is given counts packed samples already
    builder = Builder(cfg, SimpleNamespace(config=_Configuration()), SimpleNamespace(), None)
    builder.eval_dataset = _Samples(held_out) if held_out else None
    try:
        builder.build(calculate_total_num_steps(cfg, _Samples(train_len)))
    except _Built as built:
        return {name: value for name, value in built.arguments.items() if name in DECIDING}
    message = "its builder made a trainer without asking for its arguments"
    raise RuntimeError(message)


class _Samples:
    """As many samples as there are."""

    column_names = ("input_ids",)

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length


class _Configuration:
    """Stands for the configuration of a model, of which a schedule needs nothing."""

    model_type = "llama"

    def __init__(self, _: object = None) -> None:
        pass

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
