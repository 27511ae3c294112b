"""Shrinks the default configuration of any architecture to a few thousand weights, by the names of its fields.

What a configuration derives from other fields it derives again from the small ones; the rest follows `rules.py`. So an
architecture that nobody here has heard of still becomes a tiny model of its own shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.tiny.layers import KeptLayers, choose_layers, is_layer_numbers, is_per_layer
from pytest_ckpt.tiny.layout import BOS, EOS, PAD
from pytest_ckpt.tiny.rules import Scale, tiny_value
from pytest_ckpt.tiny.special import SPECIAL_CASES

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOKENS: Final = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
LEFT_OPEN: Final = frozenset(
    {"head_dim", "num_key_value_heads", "n_routed_experts", "n_shared_experts", "num_experts_per_tok"}
)
"""Sizes that some default configurations leave at None, though their models cannot be built so."""
EQUAL: Final = (("num_key_value_heads", "num_attention_heads"), ("head_dim", "qk_rope_head_dim"))
"""Sizes that stay equal where an architecture has them equal: multi-head latent attention counts on it."""
_UNKNOWN_SIZE: Final = 1 << 20


def shrunk(default: PretrainedConfig, *, scale: Scale, overrides: Mapping[str, Any]) -> PretrainedConfig:
    """Return a configuration of the class of `default`, of the sizes of `scale`, with `overrides` as they are.

    Args:
        default: the architecture's configuration as it comes; it is not changed.
        scale: the sizes to shrink to.
        overrides: fields by the name the class gives them, or by the common one (`hidden_size` for GPT-2's `n_embd`).
            What depends on an overridden width, head or layer count follows it. A mapping given for a nested
            configuration overrides the fields inside that.
    """
    asked = {parameter_of(default, name): value for name, value in overrides.items()}
    given = _given(default)
    scale = _fitted(scale, default, asked)
    if default.model_type in SPECIAL_CASES:
        asked = {**SPECIAL_CASES[default.model_type].fields(scale), **asked}
    layers = _kept_layers(default, given, scale, exact=parameter_of(default, "num_hidden_layers") in asked)
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        inner = asked.pop(name) if _is_config(value) and isinstance(asked.get(name), Mapping) else {}
        arguments[name] = _tiny(name, value, scale, layers, inner)
    arguments |= _equal(given, arguments)
    arguments |= _tokens(default)
    arguments |= _per_layer_overrides(default, scale, layers)
    return type(default)(**(arguments | asked))


def parameters_of(default: PretrainedConfig) -> Mapping[str, inspect.Parameter]:
    """Return what the constructor of the configuration's class takes by name."""
    return inspect.signature(type(default).__init__).parameters


def parameter_of(default: PretrainedConfig, name: str) -> str:
    """Return the constructor's name for the field `name`: GPT-2 says `n_embd` for `hidden_size`."""
    parameters = parameters_of(default)
    stored = default.attribute_map.get(name, name)
    same = (other for other in parameters if default.attribute_map.get(other, other) == stored)
    return name if name in parameters else next(same, name)


def _given(default: PretrainedConfig) -> dict[str, Any]:
    """Return the fields a tiny configuration must be given: what the class would not derive from the others."""
    total = _layer_count(default)
    fields: dict[str, Any] = {}
    for name, parameter in parameters_of(default).items():
        stored = default.attribute_map.get(name, name)
        if stored not in vars(default):
            continue
        value = vars(default)[stored]
        listed = is_per_layer(value, total) or is_layer_numbers(name, value, total)
        derived = parameter.default in (None, "auto") and value is not None and not _is_config(value)
        if listed or not derived:
            fields[name] = value
    return fields


def _fitted(scale: Scale, default: PretrainedConfig, asked: Mapping[str, Any]) -> Scale:
    """Return the scale with what was asked for, and with what depends on that."""

    def field(name: str) -> Any:
        return asked.get(parameter_of(default, name))

    if (heads := field("num_attention_heads")) is not None:
        scale = replace(scale, heads=heads, kv_heads=max(1, heads // 2), head_dim=scale.width // heads)
    if (width := field("hidden_size")) is not None:
        scale = replace(scale, width=width, inner=2 * width, head_dim=width // scale.heads)
    if (layers := field("num_hidden_layers")) is not None:
        scale = replace(scale, layers=layers)
    return scale


def _kept_layers(default: PretrainedConfig, given: Mapping[str, Any], scale: Scale, *, exact: bool) -> KeptLayers:
    return choose_layers(given, total=_layer_count(default), wanted=scale.layers, exact=exact)


def _layer_count(config: PretrainedConfig) -> int:
    count = getattr(config, "num_hidden_layers", None)
    return count if isinstance(count, int) else 0


def _tiny(name: str, value: Any, scale: Scale, layers: KeptLayers, overrides: Mapping[str, Any]) -> Any:
    if _is_config(value):
        return shrunk(value, scale=scale, overrides=overrides)
    if value is None and name in LEFT_OPEN:
        return tiny_value(name, _UNKNOWN_SIZE, scale)
    if type(value) is int:
        is_count = value == layers.total and "layer" in name
        return len(layers.kept) if is_count else tiny_value(name, value, scale)
    if isinstance(value, list | tuple):
        return _tiny_list(name, value, scale, layers)
    return value


def _tiny_list(name: str, values: Sequence[Any], scale: Scale, layers: KeptLayers) -> Sequence[Any]:
    if is_per_layer(values, layers.total):
        return [tiny_value(name, entry, scale) if type(entry) is int else entry for entry in layers.cut(values)]
    if is_layer_numbers(name, values, layers.total):
        return layers.renumber(values)
    if name.endswith("_types") and all(isinstance(entry, str) for entry in values):
        # A pattern that repeats along the layers: once through its kinds must fit.
        return list(dict.fromkeys(values))
    return values


def _per_layer_overrides(default: PretrainedConfig, scale: Scale, layers: KeptLayers) -> dict[str, Any]:
    """Return what single layers have of their own (transformers 5: `per_layer_config`), for the kept layers."""
    if not getattr(default, "is_heterogeneous", False):
        return {}
    own = {int(layer): fields for layer, fields in default.to_dict()["per_layer_config"].items()}
    kept = {new: _tiny_fields(own[old], scale, layers) for new, old in enumerate(layers.kept) if old in own}
    return {"per_layer_config": kept}


def _tiny_fields(fields: Mapping[str, Any], scale: Scale, layers: KeptLayers) -> dict[str, Any]:
    tiny = {name: _tiny(name, value, scale, layers, {}) for name, value in fields.items()}
    return tiny | _equal(fields, tiny)


def _tokens(default: PretrainedConfig) -> dict[str, int]:
    if not hasattr(default, "vocab_size"):
        return {}
    tokens = dict(TOKENS)  # also where the class has no such field: transformers 5.0 forgot some that its models read
    if getattr(default, "is_encoder_decoder", False):
        tokens["decoder_start_token_id"] = BOS  # T5 leaves it open
    return tokens


def _equal(given: Mapping[str, Any], tiny: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tiny values that must follow others, because they equal them in the default."""
    return {
        name: tiny[other] for name, other in EQUAL if given.get(name) is not None and given[name] == given.get(other)
    }


def _is_config(value: object) -> bool:
    from transformers import PretrainedConfig

    return isinstance(value, PretrainedConfig)
