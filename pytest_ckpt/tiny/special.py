"""The few architectures whose default configuration cannot be shrunk by the names of its fields, each with the reason.

A row here is a last resort: first try to say it as a rule. The fields are set as if they had been asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_ckpt.tiny.rules import Scale


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialCase:
    """Fields to set for one architecture, and why no rule can."""

    reason: str
    fields: Callable[[Scale], Mapping[str, Any]]


_ONE_OF_EACH = "the default has no attention layer, and its cache cannot do without one"

SPECIAL_CASES: Final[Mapping[str, SpecialCase]] = {
    "bamba": SpecialCase(reason=_ONE_OF_EACH, fields=lambda _: {"attn_layer_indices": [1]}),
    "blt": SpecialCase(
        reason="its cache asks for the layers of the whole, which only its parts have",
        fields=lambda _: {"use_cache": False},
    ),
    "cohere_compass_text": SpecialCase(
        reason="the default leaves the rotary parameters empty, the model wants them for each kind of layer",
        fields=lambda _: {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    ),
    "dbrx": SpecialCase(
        reason="the model wants the rotary base and a bound from the attention part, whose default has neither",
        fields=lambda _: {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    ),
    "dory": SpecialCase(
        reason="what is left between its first and its last layers is run in a loop, so there must be three",
        fields=lambda _: {
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "esm": SpecialCase(reason="the default has no vocabulary", fields=lambda scale: {"vocab_size": scale.vocab}),
    "gpt_neo": SpecialCase(
        reason="the kinds of its layers are a nested pattern that must multiply out to the number of layers",
        fields=lambda scale: {"attention_types": [[["global"], scale.layers - 1], [["local"], 1]]},
    ),
    "granitemoehybrid": SpecialCase(reason=_ONE_OF_EACH, fields=lambda _: {"layer_types": ["mamba", "attention"]}),
    "jamba": SpecialCase(
        reason="its fast kernels, on by default, must be installed and want a GPU",
        fields=lambda _: {"use_mamba_kernels": False},
    ),
    "lfm2_moe": SpecialCase(
        reason="the default leaves the kinds of the layers open",
        fields=lambda _: {"layer_types": ["conv", "full_attention"]},
    ),
    "mamba2": SpecialCase(
        reason="heads * head_dim must be expand * width, and expand is 2",
        fields=lambda scale: {"num_heads": 2 * scale.width // scale.head_dim},
    ),
    "qwen4_exp_text": SpecialCase(
        reason="the default leaves the sizes of the indexer open",
        fields=lambda _: {
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 16,
            "indexer_compress_ratio": 4,
        },
    ),
    "reformer": SpecialCase(
        reason="axial positions fix the length of every text to the product of two sizes",
        fields=lambda _: {"axial_pos_embds": False},
    ),
    "xmod": SpecialCase(
        reason="without a language it picks no adapter", fields=lambda _: {"default_language": "en_XX"}
    ),
    "zamba": SpecialCase(
        reason="it ties its attention layers with one another, so there must be two",
        fields=lambda _: {
            "layers_block_type": ["mamba", "hybrid", "hybrid"],
            "num_hidden_layers": 3,
            "use_mamba_kernels": False,
        },
    ),
}

UNSUITABLE: Final[Mapping[str, str]] = {
    "gemma4_unified_assistant": "it drafts for another model, whose states it wants as input",
    "git": "its loss skips as many tokens as an image has, so that text alone has no loss",
    "layoutlmv3": "it adds embeddings of boxes on a page, whose sizes must add up to its width",
    "xlstm": "the cell that transformers has for it writes over values that the backward pass needs",
    "lilt": "it divides its width into six parts, and needs boxes on a page",
}
"""Architectures that would be built and then fail in training, and why."""
