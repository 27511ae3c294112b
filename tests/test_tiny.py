"""The tiny package as a whole: what importing it costs, the tokenizer, and the plain torch module."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoTokenizer

from pytest_ckpt import tiny
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

IMPORTED = """
import sys
import pytest_ckpt.tiny
assert callable(pytest_ckpt.tiny.__getattr__)
print(sorted({"numpy", "tokenizers", "torch", "transformers"} & set(sys.modules)))
"""


def test_importing_the_package_imports_no_framework() -> None:
    """A session that asks for no model pays for none."""
    run = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert "[]\n" == run.stdout


def test_every_public_name_is_there() -> None:
    """What `__all__` promises is found, and nothing else is."""
    assert tiny.__all__ == dir(tiny)
    assert all(callable(getattr(tiny, name)) for name in tiny.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'causal'"):
        tiny.causal  # noqa: B018


@pytest.mark.parametrize("vocab_size", [8, 64, 300])
def test_a_tokenizer_has_as_many_tokens_as_the_model(vocab_size: int) -> None:
    """No id that the tokenizer gives is outside the model's vocabulary, whatever the text."""
    tokenizer = tiny.tokenizer(vocab_size)
    assert vocab_size == len(tokenizer)
    assert max(tokenizer("The quick Brown fox, 0123456789 {jumps} Å over!")["input_ids"]) < vocab_size


def test_the_special_tokens_are_those_of_the_models() -> None:
    """Padding, begin, end and unknown have the ids that the configurations name."""
    tokenizer, config = tiny.tokenizer(), tiny.causal_lm().config
    assert (0, 1, 2, 3) == (
        tokenizer.pad_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
    )
    assert (0, 1, 2) == (config.pad_token_id, config.bos_token_id, config.eos_token_id)


def test_a_text_comes_back_from_its_tokens() -> None:
    """Each letter is a token; capitals become small until there is room for them, what is missing is unknown."""
    assert "hello world 42\n(x)" == tiny.tokenizer().decode(tiny.tokenizer()("Hello World 42\n(x)")["input_ids"])
    assert "Hello {World}" == tiny.tokenizer(128).decode(tiny.tokenizer(128)("Hello {World}")["input_ids"])
    assert "<unk>x" == tiny.tokenizer().decode(tiny.tokenizer()("{x")["input_ids"])


def test_a_batch_of_texts_is_padded_and_fits_the_model() -> None:
    """What the tokenizer returns can be passed to a model as it is."""
    batch = tiny.tokenizer()(["ab", "abc"], padding=True, return_tensors="pt")
    assert [[5, 6, 0], [5, 6, 7]] == batch["input_ids"].tolist()
    assert (2, 3, 64) == tiny.causal_lm()(**batch).logits.shape


def test_a_tokenizer_survives_saving(tmp_path: Path) -> None:
    """A saved tokenizer loads as the same tokenizer, without the network."""
    tokenizer = tiny.tokenizer(128)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("Some text, 1!").data == loaded("Some text, 1!").data
    assert tokenizer.get_vocab() == loaded.get_vocab()
    assert tokenizer.special_tokens_map == loaded.special_tokens_map


@pytest.mark.parametrize("vocab_size", [7, 10**7, True])
def test_a_tokenizer_of_an_impossible_size_is_refused(vocab_size: int) -> None:
    """Too few for the special tokens, or more than there are letters."""
    with pytest.raises(InvalidArgument, match=f"vocab_size is {vocab_size}"):
        tiny.tokenizer(vocab_size)


def test_a_torch_model_is_made_from_its_seed() -> None:
    """Equal seeds give equal bits, other seeds others."""
    first, again, other = (tiny.torch_model(seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


def test_a_torch_model_has_dropout_and_buffers() -> None:
    """Random numbers are drawn in training, and running statistics move: two things a checkpoint may forget."""
    model = tiny.torch_model()
    inputs = torch.randn(4, 8)
    before = model.get_buffer("norm.running_mean").clone()
    assert not torch.equal(model(inputs), model(inputs))
    assert not torch.equal(before, model.get_buffer("norm.running_mean"))


def test_a_torch_model_can_be_without_them() -> None:
    """Without dropout and batch normalisation the same input gives the same output, and there are no buffers."""
    model = tiny.torch_model(features=3, classes=2, dropout=0, batch_norm=False)
    inputs = torch.randn(5, 3)
    assert torch.equal(model(inputs), model(inputs))
    assert (5, 2) == model(inputs).shape
    assert [] == list(model.buffers())


def test_tied_weights_are_one_parameter() -> None:
    """Tied means the same object under two names, also after copying and pickling."""
    tied, apart = tiny.torch_model(tied=True), tiny.torch_model()
    assert len(list(apart.parameters())) == len(list(tied.parameters())) + 1
    for model in (tied, copy.deepcopy(tied), pickle.loads(pickle.dumps(tied))):  # noqa: S301 - written a moment ago
        assert model.get_parameter("first.weight") is model.get_parameter("second.weight")


@pytest.mark.parametrize(
    ("field", "value"), [("dropout", 1.0), ("features", 0), ("classes", 0), ("seed", -1), ("device", "nowhere")]
)
def test_a_torch_model_refuses_what_makes_no_sense(field: str, value: object) -> None:
    """The message names the argument and what was given."""
    with pytest.raises(InvalidArgument, match=f"{field} is {value!r}"):
        tiny.torch_model(**{field: value})  # type: ignore[arg-type]
