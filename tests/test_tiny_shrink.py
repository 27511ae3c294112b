"""The shrink of configurations: names become sizes, and of every kind of layer one is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, PretrainedConfig

from pytest_ckpt.tiny.layers import MOST_LAYERS, choose_layers, is_layer_numbers
from pytest_ckpt.tiny.rules import Scale, tiny_value
from pytest_ckpt.tiny.shrink import shrunk
from pytest_ckpt.tiny.special import SPECIAL_CASES, UNSUITABLE


def tiny_config(model_type: str, **overrides: object) -> PretrainedConfig:
    """Return the shrunk default configuration of a registered architecture."""
    return shrunk(CONFIG_MAPPING[model_type](), scale=Scale(), overrides=overrides)


@pytest.mark.parametrize(
    ("name", "default", "expected"),
    [
        ("hidden_size", 4096, 32),
        ("n_embd", 768, 32),
        ("intermediate_size", 11008, 64),
        ("num_hidden_layers", 32, 2),
        ("n_head", 12, 4),
        ("num_key_value_heads", 8, 2),
        ("num_key_value_heads", 1, 1),
        ("head_dim", 128, 8),
        ("qk_rope_head_dim", 64, 4),
        ("num_local_experts", 128, 4),
        ("num_experts_per_tok", 8, 2),
        ("kv_lora_rank", 512, 8),
        ("max_position_embeddings", 2048, 64),
        ("max_position_embeddings", 514, 66),
        ("sliding_window", 4096, 8),
        ("sliding_window", 513, 9),
        ("vocab_size", 151936, 64),
        ("pad_token_id", 151643, 0),
        ("pad_token_id", -1, -1),
        ("eos_token_id", 50256, 2),
        ("image_token_index", 262144, 3),
        ("num_labels", 1000, 1000),
    ],
)
def test_a_field_shrinks_by_its_name(name: str, default: int, expected: int) -> None:
    """Names that say what they size become small; others stay."""
    assert expected == tiny_value(name, default, Scale())


@given(st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8}){0,3}", fullmatch=True), st.integers(min_value=0, max_value=10**6))
def test_no_field_grows(name: str, value: int) -> None:
    """Whatever a field is called, it never gets larger than it was, except a token that becomes another token."""
    assert tiny_value(name, value, Scale()) <= max(value, 3)


def test_one_layer_of_every_kind_is_kept() -> None:
    """The kept layers stand in the order of the default and show each kind that any of its lists has."""
    kinds = ["a"] * 5 + ["b"] * 5
    fields = {"layer_types": kinds, "mlp_layer_types": ["x"] + ["y"] * 9, "full_attn_idxs": [7]}
    layers = choose_layers(fields, total=10, wanted=2, exact=False)
    assert (0, 1, 5, 7) == layers.kept
    assert ["a", "a", "b", "b"] == layers.cut(kinds)
    assert [3] == layers.renumber([7])


def test_a_number_of_layers_that_was_asked_for_is_kept() -> None:
    """More than the default has repeat it; fewer than there are kinds leave some out."""
    fields = {"layer_types": ["a", "b", "c"]}
    assert (0, 1, 2, 0, 1) == choose_layers(fields, total=3, wanted=5, exact=True).kept
    assert (0,) == choose_layers(fields, total=3, wanted=1, exact=True).kept


@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40), st.integers(1, 6))
def test_the_kept_layers_are_layers_of_the_default(kinds: list[str], wanted: int) -> None:
    """There are as many as wanted if there are so many, never more than the limit, none twice, in order."""
    layers = choose_layers({"kinds": kinds}, total=len(kinds), wanted=wanted, exact=False)
    assert sorted(set(layers.kept)) == list(layers.kept)
    assert min(wanted, len(kinds)) <= len(layers.kept) <= max(wanted, MOST_LAYERS)
    assert all(0 <= index < len(kinds) for index in layers.kept)


def test_layer_numbers_are_told_from_other_lists() -> None:
    """A list of layer numbers says so by its name, and its entries are layers."""
    assert is_layer_numbers("full_attn_idxs", [0, 3], 4)
    assert not is_layer_numbers("full_attn_idxs", [0, 4], 4)
    assert not is_layer_numbers("full_attn_idxs", [], 4)
    assert not is_layer_numbers("mlp_multipliers", [0, 1], 4)


def test_what_a_configuration_derives_it_derives_again() -> None:
    """A field that the class computes from others follows the small ones."""
    config = tiny_config("falcon_mamba")
    assert (32, 64, 2) == (config.hidden_size, config.intermediate_size, config.time_step_rank)


def test_multi_head_attention_stays_so() -> None:
    """As many key as query heads where the default has them: latent attention counts on it."""
    latent, grouped = tiny_config("deepseek_v3"), tiny_config("qwen3")
    assert latent.num_attention_heads == latent.num_key_value_heads
    assert (4, 4) == (latent.num_attention_heads, tiny_config("llama").num_key_value_heads)
    assert grouped.num_attention_heads == grouped.num_key_value_heads


def test_grouped_attention_stays_so() -> None:
    """Fewer key than query heads where the default has fewer."""
    config = tiny_config("mistral")
    assert (4, 2) == (config.num_attention_heads, config.num_key_value_heads)


def test_an_override_is_taken_under_either_name() -> None:
    """GPT-2 says `n_embd` for `hidden_size`; what depends on it follows."""
    assert 48 == tiny_config("gpt2", hidden_size=48).n_embd == tiny_config("gpt2", n_embd=48).n_embd
    wide = tiny_config("gemma2", hidden_size=64, num_attention_heads=2)
    assert (64, 2, 32, 128) == (wide.hidden_size, wide.num_attention_heads, wide.head_dim, wide.intermediate_size)


def test_an_overridden_number_of_layers_cuts_the_lists() -> None:
    """The list of layer kinds has as many entries as there are layers."""
    config = tiny_config("gemma2", num_hidden_layers=5)
    assert (5, 5) == (config.num_hidden_layers, len(config.layer_types))
    assert {"sliding_attention", "full_attention"} == set(tiny_config("gemma3_text").layer_types)


def test_a_nested_configuration_shrinks_too() -> None:
    """And takes overrides of its own."""
    config = tiny_config("gemma3", text_config={"hidden_size": 48})
    assert (48, 32) == (config.text_config.hidden_size, config.vision_config.hidden_size)
    assert 64 == config.text_config.vocab_size


def test_the_default_configuration_is_left_alone() -> None:
    """Shrinking makes another configuration."""
    default = CONFIG_MAPPING["gemma3"]()
    before = default.to_dict()
    shrunk(default, scale=Scale(), overrides={"text_config": {"hidden_size": 48}})
    assert before == default.to_dict()


def test_special_cases_are_few_and_have_reasons() -> None:
    """The general shrink does the work; each exception says why it is one."""
    assert len(SPECIAL_CASES) + len(UNSUITABLE) <= 20
    assert all(case.reason for case in SPECIAL_CASES.values())
    assert not SPECIAL_CASES.keys() & UNSUITABLE.keys()
