"""The tiny data sets: every sample different, learnable, deterministic, and accepted by the usual collators."""

from __future__ import annotations

import pickle
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate
from transformers import default_data_collator

from pytest_ckpt import tiny
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.data import Dataset

MAKERS: Final[dict[str, Callable[..., Any]]] = {
    "text": tiny.text,
    "labelled text": partial(tiny.text, labels=2),
    "vectors": tiny.vectors,
}
MODELS_FOR: Final = dict(zip(MAKERS.values(), (tiny.causal_lm, tiny.classifier, tiny.torch_model), strict=True))
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def losses(model: torch.nn.Module, data: Dataset[Any], *, steps: int, rate: float) -> list[float]:
    """Train for a number of steps in the order of the data, and return the loss of each."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate)
    found = []
    for batch in islice(cycle(DataLoader(data, batch_size=8)), steps):
        loss = model(**batch).loss if isinstance(batch, dict) else cross_entropy(model, *batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def cross_entropy(model: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of a model that returns logits."""
    return torch.nn.functional.cross_entropy(model(inputs), labels)


def test_a_sample_of_text_is_what_the_models_take() -> None:
    """Ids, mask and labels are int64 of the length asked for; the labels are the ids; no id is special."""
    sample = tiny.text(4, length=10)[1]
    tokens, labels = sample["input_ids"], sample["labels"]
    assert isinstance(tokens, torch.Tensor)
    assert isinstance(labels, torch.Tensor)
    assert (torch.int64, (10,)) == (tokens.dtype, tokens.shape)
    assert torch.equal(torch.ones(10, dtype=torch.int64), torch.as_tensor(sample["attention_mask"]))
    assert torch.equal(tokens, labels)
    assert 4 <= tokens.min() <= tokens.max() < 64


@pytest.mark.parametrize(
    ("samples", "length", "vocab_size", "labels"),
    [
        (32, 16, 64, None),
        (5000, 16, 64, None),
        (60, 1, 64, None),
        (64, 3, 8, None),
        (375, 4, 20, 3),
        (60, 2, 64, 60),
        (216, 4, 16, 2),
    ],
)
def test_no_two_texts_are_equal(samples: int, length: int, vocab_size: int, labels: int | None) -> None:
    """However many are asked for, down to the last that there can be, and of the length and classes asked for."""
    data = tiny.text(samples, length=length, vocab_size=vocab_size, labels=labels)
    seen = {tuple(torch.as_tensor(data[index]["input_ids"]).tolist()) for index in range(samples)}
    assert samples == len(data) == len(seen)
    assert {length} == {len(tokens) for tokens in seen}
    assert all(token < vocab_size for tokens in seen for token in tokens)


def test_more_texts_than_there_are_is_refused() -> None:
    """The message says how many there are, and what would make more."""
    tiny.text(3600, length=2)
    with pytest.raises(InvalidArgument, match="3601 samples were asked for, but there are only 3600 different"):
        tiny.text(3601, length=2)


@every_maker
def test_data_depends_on_the_seed_alone(make: Callable[..., Any]) -> None:
    """Equal seeds give equal samples, whatever the global generators say, and other seeds others."""
    first = str(list(make(seed=5)))
    torch.manual_seed(99)
    assert first == str(list(make(seed=5)))
    assert first != str(list(make(seed=6)))


def test_the_class_of_a_text_is_to_be_told_from_its_tokens() -> None:
    """Each class has tokens of its own; classes take turns; the last token is the end token."""
    data = tiny.text(30, labels=3)
    tokens_of: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for index in range(30):
        tokens = torch.as_tensor(data[index]["input_ids"]).tolist()
        assert 2 == tokens[-1]
        assert index % 3 == data[index]["labels"]
        tokens_of[index % 3] |= set(tokens[:-1])
    assert sum(map(len, tokens_of.values())) == len(set.union(*tokens_of.values()))


@pytest.mark.parametrize("labels", [None, 2])
@pytest.mark.parametrize("collate", [default_collate, default_data_collator])
def test_texts_collate(collate: Callable[[list[Any]], dict[str, torch.Tensor]], labels: int | None) -> None:
    """The default collators of torch and transformers make an int64 batch of them."""
    data = tiny.text(3, labels=labels)
    batch = collate([data[index] for index in range(3)])
    assert {"input_ids", "attention_mask", "labels"} == set(batch)
    assert {torch.int64} == {value.dtype for value in batch.values()}
    assert ((3, 16), (3, 16) if labels is None else (3,)) == (batch["input_ids"].shape, batch["labels"].shape)


@every_maker
def test_data_pickles_and_ends(make: Callable[[int], Any]) -> None:
    """Workers get the data by pickle, and iterating over it stops."""
    data = make(4)
    copied = pickle.loads(pickle.dumps(data))  # noqa: S301 - written a moment ago
    assert 4 == len(copied) == len(list(copied))
    assert str(list(data)) == str(list(copied))


def test_a_sample_may_be_changed() -> None:
    """A transformation in place reaches no later epoch."""
    texts, points = tiny.text(), tiny.vectors()
    torch.as_tensor(texts[0]["input_ids"]).zero_()
    points[0][0].zero_()
    assert torch.as_tensor(texts[0]["input_ids"]).min() >= 4
    assert points[0][0].abs().min() > 0


def test_a_causal_model_learns_the_texts() -> None:
    """The loss falls to a fifth within forty steps."""
    found = losses(tiny.causal_lm(), tiny.text(), steps=40, rate=1e-2)
    assert found[-1] < found[0] / 5


@pytest.mark.parametrize("arch", ["bert", "llama"])
def test_a_classifier_learns_the_classes(arch: str) -> None:
    """The loss falls to a fifth within forty steps, for encoders and for causal architectures."""
    found = losses(tiny.classifier(arch), tiny.text(labels=2), steps=40, rate=5e-3)
    assert found[-1] < found[0] / 5


def test_a_torch_model_learns_the_vectors() -> None:
    """The loss falls to a fifth within forty steps."""
    found = losses(tiny.torch_model(), tiny.vectors(), steps=40, rate=1e-2)
    assert found[-1] < found[0] / 5


@every_maker
def test_the_order_of_the_samples_matters(make: Callable[..., Any]) -> None:
    """The same samples in another order lead to other weights, so a wrong order can be seen."""
    trained = []
    for order in (range(16), [*range(8, 16), *range(8)]):
        model = MODELS_FOR[make]()
        losses(model, Subset(make(16), order), steps=2, rate=1e-3)
        trained.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert not torch.equal(*trained)


def test_a_vector_is_what_the_torch_model_takes() -> None:
    """A float32 point and an int64 class; no two points are equal; classes take turns."""
    data = tiny.vectors(20, features=3, classes=5)
    points = torch.stack([data[index][0] for index in range(20)])
    labels = torch.stack([data[index][1] for index in range(20)])
    assert (torch.float32, (20, 3)) == (points.dtype, points.shape)
    assert torch.equal(torch.arange(20) % 5, labels)
    assert 20 == len(torch.unique(points, dim=0))


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (tiny.text, "samples", 0),
        (tiny.text, "length", 0),
        (tiny.text, "vocab_size", 7),
        (tiny.text, "seed", -1),
        (tiny.text, "labels", 1),
        (tiny.text, "labels", 61),
        (tiny.vectors, "samples", 2.5),
        (tiny.vectors, "features", 0),
        (tiny.vectors, "classes", 0),
        (tiny.vectors, "seed", None),
    ],
)
def test_data_refuses_what_makes_no_sense(make: Callable[..., object], field: str, value: object) -> None:
    """The message names the argument and what was given."""
    with pytest.raises(InvalidArgument, match=f"{field} is {value!r}"):
        make(**{field: value})
