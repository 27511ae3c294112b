"""The tiny transformers models: any architecture, seeded, small, trainable, and without a trace in the process."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pytest_ckpt import tiny
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

CAUSAL: Final = (
    *("llama", "gpt2", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "gemma3", "phi", "phi3", "opt", "gpt_neox"),
    *("mixtral", "falcon", "bloom", "stablelm", "gptj", "gpt_neo", "codegen", "starcoder2", "olmo2", "cohere", "mpt"),
    *("qwen2_moe", "qwen3_moe", "qwen3_next", "deepseek_v3", "granite", "smollm3", "gpt_oss", "mamba2", "jamba"),
    *("bert", "xlm-roberta", "gemma3n", "llama4", "minicpm3", "dbrx", "zamba", "lfm2_moe", "reformer"),
)
CLASSIFIERS: Final = (
    *("bert", "distilbert", "roberta", "deberta-v2", "electra", "albert", "modernbert", "xlm-roberta", "longformer"),
    *("bart", "t5", "llama", "gpt2", "qwen2", "mistral"),
)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return all weights and buffers by name."""
    return dict(model.state_dict())


def train_two_steps(model: PreTrainedModel, labels: int | None) -> None:
    """Take two optimizer steps and check that each loss and gradient is finite, and that the weights moved."""
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3)
    for batch in torch.utils.data.DataLoader(tiny.text(8, labels=labels), batch_size=4):
        loss = model(**batch).loss
        assert torch.isfinite(loss)
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        optimizer.step()
        optimizer.zero_grad()
    moved = [name for name, weight in model.named_parameters() if not torch.equal(before[name], weight)]
    assert len(moved) > len(before) / 4


@pytest.mark.parametrize("arch", CAUSAL)
def test_a_causal_model_of_any_architecture_trains(arch: str, tmp_path: Path) -> None:
    """It is made, takes under 1 MB on disk, and learns from a language modelling loss."""
    model = tiny.causal_lm(arch)
    save_model(model, str(tmp_path / "model.safetensors"))
    assert (tmp_path / "model.safetensors").stat().st_size < 1_000_000
    train_two_steps(model, labels=None)


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_a_classifier_of_any_architecture_trains(arch: str, tmp_path: Path) -> None:
    """It is made with as many classes as asked for, takes under 1 MB on disk, and learns from a classification loss."""
    model = tiny.classifier(arch, num_labels=3)
    save_model(model, str(tmp_path / "model.safetensors"))
    assert (tmp_path / "model.safetensors").stat().st_size < 1_000_000
    assert 3 == model.config.num_labels
    train_two_steps(model, labels=3)


@pytest.mark.parametrize("make", [tiny.causal_lm, tiny.classifier])
def test_equal_seeds_give_equal_bits(make: Callable[..., PreTrainedModel]) -> None:
    """The weights depend on the seed and not on the process; another seed gives others."""
    first = weights(make(seed=7))
    torch.manual_seed(1234)
    again, other = weights(make(seed=7)), weights(make(seed=8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    "make",
    [
        tiny.causal_lm,
        partial(tiny.causal_lm, "reformer"),
        tiny.classifier,
        tiny.torch_model,
        tiny.text,
        partial(tiny.text, labels=2),
        tiny.vectors,
        tiny.tokenizer,
    ],
)
def test_the_callers_generators_are_untouched(make: Callable[[], object]) -> None:
    """torch, numpy and random go on as if nothing had been made."""
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state())  # noqa: NPY002 - the global one
    make()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert str(states[2]) == str(np.random.get_state())  # noqa: NPY002


def test_the_callers_generators_are_untouched_by_a_failure() -> None:
    """An architecture that cannot be made leaves the generators as they were, too."""
    state = torch.get_rng_state()
    with pytest.raises(InvalidArgument):
        tiny.causal_lm("llama", hidden_size=30)
    assert torch.equal(state, torch.get_rng_state())


def test_dropout_is_the_architectures_own() -> None:
    """GPT-2 drops out by default, Llama does not: neither is changed."""
    tokens = torch.arange(4, 20)[None]
    gpt2, llama = tiny.causal_lm("gpt2").train(), tiny.causal_lm("llama").train()
    assert not torch.equal(gpt2(tokens).logits, gpt2(tokens).logits)
    assert torch.equal(llama(tokens).logits, llama(tokens).logits)


def test_tied_weights_stay_tied() -> None:
    """GPT-2's head is its embedding, Llama's is not."""
    gpt2, llama = tiny.causal_lm("gpt2"), tiny.causal_lm("llama")
    assert gpt2.lm_head.weight is gpt2.get_input_embeddings().weight
    assert llama.lm_head.weight is not llama.get_input_embeddings().weight


def test_a_causal_model_does_not_look_ahead() -> None:
    """A changed token changes no logit before it, in an architecture that was an encoder by default."""
    tokens = torch.arange(4, 20)[None]
    changed = tokens.clone()
    changed[0, 10] = 60
    model = tiny.causal_lm("bert").train(mode=False)
    assert torch.equal(model(tokens).logits[0, :10], model(changed).logits[0, :10])
    assert not torch.equal(model(tokens).logits[0, 10:], model(changed).logits[0, 10:])


def test_a_saved_model_comes_back(tmp_path: Path) -> None:
    """`save_pretrained` and `from_pretrained` give the same weights, without the network."""
    model = tiny.causal_lm("qwen3", seed=3)
    model.save_pretrained(tmp_path)
    loaded = weights(AutoModelForCausalLM.from_pretrained(tmp_path))
    assert all(torch.equal(weight, loaded[name]) for name, weight in weights(model).items())


@pytest.mark.parametrize(
    ("arch", "model_type"),
    [
        ("GPT2", "gpt2"),
        ("gpt-2", "gpt2"),
        ("GPTNeoX", "gpt_neox"),
        ("gpt-neox", "gpt_neox"),
        ("Qwen3_MoE", "qwen3_moe"),
        ("xlm_roberta", "xlm-roberta"),
        ("gemma3", "gemma3_text"),
    ],
)
def test_an_architecture_is_known_by_any_spelling(arch: str, model_type: str) -> None:
    """Case, hyphens and underscores do not matter, and of one that also sees it is the part that reads."""
    assert model_type == tiny.causal_lm(arch).config.model_type


def test_every_registered_name_is_its_own() -> None:
    """No two architectures differ by spelling alone, so that none is out of reach."""
    spellings = {"".join(filter(str.isalnum, name.lower())) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    assert len(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) == len(spellings)


def test_fields_and_vocabulary_are_as_asked() -> None:
    """Fields given by keyword are set, and a model so made may be larger than 1 MB."""
    model = tiny.causal_lm("llama", vocab_size=4096, hidden_size=256, num_hidden_layers=1, attention_dropout=0.5)
    assert (4096, 256) == model.get_input_embeddings().weight.shape
    assert (1, 0.5) == (model.config.num_hidden_layers, model.config.attention_dropout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "gpt2x"}, "arch is 'gpt2x'.*no such causal language model.*closest: 'gpt2'"),
        ({"arch": "vit"}, "arch is 'vit'.*no such causal language model"),
        ({"arch": "git"}, "No tiny 'git' can be made.*as many tokens as an image has"),
        ({"arch": "musicgen"}, "No tiny 'musicgen' can be made.*the model cannot be built"),
        ({"arch": "gemma4_assistant"}, "No tiny 'gemma4_assistant' can be made.*default configuration is refused"),
        ({"hiden_size": 8}, "LlamaConfig has no field 'hiden_size'; closest are 'hidden_size'"),
        ({"hidden_size": 30}, "No tiny 'llama' can be made with {'hidden_size': 30}.*not a multiple"),
        ({"vocab_size": 7}, "vocab_size is 7, but must be an integer of at least 8"),
        ({"seed": 1.5}, "seed is 1.5, but must be an integer"),
        ({"device": "nowhere"}, "device is 'nowhere', but torch"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(arguments: dict[str, Any], message: str) -> None:
    """The message says what was asked for, why it cannot be, and what comes close."""
    with pytest.raises(InvalidArgument, match=message):
        tiny.causal_lm(**arguments)


def test_a_model_that_stays_large_is_refused() -> None:
    """Where the names of the fields did not do it, the largest weights are named."""
    with pytest.raises(InvalidArgument, match=r"its weights take \d+ bytes instead of at most 1000000, the largest"):
        tiny.classifier("markuplm")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("make", [tiny.causal_lm, tiny.classifier, tiny.torch_model])
def test_a_model_on_a_gpu_has_the_weights_of_one_on_the_cpu(make: Callable[..., torch.nn.Module]) -> None:
    """The device changes where the weights are, and neither their bits nor the GPU's generator."""
    state = torch.cuda.get_rng_state()
    on_gpu, on_cpu = weights(make(device="cuda")), weights(make())
    assert {"cuda"} == {weight.device.type for weight in on_gpu.values()}
    assert all(torch.equal(weight, on_gpu[name].cpu()) for name, weight in on_cpu.items())
    assert torch.equal(state, torch.cuda.get_rng_state())
