"""What the name of a configuration field says about its size: the vocabulary the shrink works with.

The fields of some two hundred architectures are named in a few dozen ways. Each row of `RULES` is one such way and the
tiny value that belongs to it; the first row that matches decides. A name that no row knows keeps its default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_ckpt.tiny.layout import BOS, EOS, PAD, UNK, VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_BEYOND: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The sizes of a tiny model, from which every shrunk field follows."""

    vocab: int = VOCABULARY
    width: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    half_head: int = 4
    inner: int = 64
    layers: int = 2
    positions: int = 64
    experts: int = 4
    chosen_experts: int = 2


def _token(token: int) -> Callable[[int, Scale], int]:
    """Name a special token; a negative number switches it off and stays."""
    return lambda value, _: token if value >= 0 else value


def _positions(value: int, scale: Scale) -> int:
    """Keep the few that a table of positions has beyond a power of two: RoBERTa starts at 2, so it has 514."""
    beyond = value - (1 << (value.bit_length() - 1)) if value > 0 else 0
    return value if value <= scale.positions else scale.positions + (beyond if beyond <= _MOST_BEYOND else 0)


def _window(value: int, _: Scale) -> int:
    """Keep the parity: a window around a token is odd."""
    return min(value, 8 + value % 2)


Shrink: TypeAlias = "Callable[[int, Scale], int] | str | int"
"""How a field shrinks: to at most this number, to at most that size of the scale, or by a function."""

RULES: Final[tuple[tuple[str, Shrink], ...]] = (
    # Tokens. Whatever is not text (image, audio, mask) becomes the unknown token, which the texts made here never hold.
    (r"(.*_)?pad_(token_id|index)", _token(PAD)),
    (r"((.*_)?(bos|cls|decoder_start)_token_id|bos_index)", _token(BOS)),
    (r"((.*_)?(eos|sep|eod)_token_id|eos_index)", _token(EOS)),
    (r".*_token_(id|index)|(unk|mask)_index", _token(UNK)),
    (r".*vocab_size\w*|.*_vocab|num_hash_buckets", "vocab"),
    # Experts.
    (r"(num|n|topk|num_expert)_groups?", 2),
    (r".*shared_experts", 1),
    (r".*(num|n)(_local|_routed)?_experts|zero_expert_num", "experts"),
    (r".*(experts_per_tok|experts_per_token|topk|top_k|moe_k)", "chosen_experts"),
    # Layers, and how often something happens along them.
    (r".*_(period|interval|pattern|every|sparse_step|layer_step)|layer_group_size|.*every_n_layers", 2),
    (r".*_offset|first_k_dense_replace|.*num_dense_layers", 1),
    (r"num_kv_shared_layers|num_nextn_predict_layers", 0),
    (r"(n|num)_(input|output|first|last)_layers", 1),
    (
        r".*(num|n)(_\w+)?_layers?|(en|de)coder_layers|num_layers_per_stack|depth|num_blocks|num_self_attends_per_block",
        "layers",
    ),
    # Heads.
    (r".*(num_key_value_heads|kv_n_heads|num_kv_heads|num_key_heads|query_groups)", "kv_heads"),
    (r".*heads?", "heads"),
    (r".*qk_(nope|rope)_head_dim|.*rotary_dim", "half_head"),
    (r".*(head_?dim|head_size|d_kv|d_head|dim_head|kv_channels|query_pre_attn_scalar)", "head_dim"),
    # Lengths.
    (r".*(max_(\w+_)?positions?|n_positions|max_seq|seq_length|n_ctx|context_length).*", _positions),
    (r"model_max_length", _positions),
    (r".*(window|local_attention).*", _window),
    (r".*chunk_length|local_transformer_stride", 4),
    (r".*(chunk_size|block_size|index_topk)", 16),
    # Widths.
    (r".*(multiple_of|divisible_by)", 4),
    (r".*(_rank|lowrank)", 8),
    (r".*(d_state|state_size)", 8),
    (r".*(intermediate|ffn|inner|mlp|feed_forward)\w*(size|dim)\w*|d_ff|dim_ff|dff|d_inner|hidden_dim", "inner"),
    (r"mamba_d_ssm", "inner"),
    (
        r"(.*_)?(hidden|embed|embedding|emb|model|width|n_embd|dim|bottleneck)(_size|_dim)?(_per_layer_input|_global)?",
        "width",
    ),
    (r".*_proj_dim|lru_width|d_latents|.*channels?|adapter_\w+_(size|dim)", "width"),
)
_COMPILED: Final = tuple((re.compile(pattern), shrink) for pattern, shrink in RULES)


def tiny_value(name: str, value: int, scale: Scale) -> int:
    """Return what the field `name` with the default `value` holds in a model of this `scale`."""
    for pattern, shrink in _COMPILED:
        if pattern.fullmatch(name):
            return _applied(shrink, value, scale)
    return value


def _applied(shrink: Shrink, value: int, scale: Scale) -> int:
    if isinstance(shrink, int):
        return min(value, shrink)
    if isinstance(shrink, str):
        return min(value, int(getattr(scale, shrink)))
    return shrink(value, scale)
