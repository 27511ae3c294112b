"""Data sets that a tiny model learns in tens of steps, of samples that are all different.

A batch-order bug shows only where every sample moves the weights in a way of its own, and a broken resume only where
the loss has somewhere to go.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch.utils.data import Dataset

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.tiny.layout import EOS, FIRST_TOKEN, VOCABULARY
from pytest_ckpt.tiny.making import checked, checked_vocabulary

TextSample: TypeAlias = dict[str, "torch.Tensor | int"]
VectorSample: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class TinyText(Dataset[TextSample]):
    """Token sequences for a language model or a classifier; `text` makes them. It pickles."""

    def __init__(self, tokens: torch.Tensor, classes: list[int] | None) -> None:
        self._tokens = tokens
        self._classes = classes

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> TextSample:
        """Return a sample of its own: whoever changes it changes no later epoch."""
        tokens = self._tokens[index].clone()
        labels = tokens.clone() if self._classes is None else self._classes[index]
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


class TinyVectors(Dataset[VectorSample]):
    """Points and the classes of the centres around which they lie; `vectors` makes them. It pickles."""

    def __init__(self, points: torch.Tensor, classes: torch.Tensor) -> None:
        self._points = points
        self._classes = classes

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, index: int) -> VectorSample:
        """Return a sample of its own: whoever changes it changes no later epoch."""
        return self._points[index].clone(), self._classes[index].clone()


def text(
    samples: int = 32, *, length: int = 16, vocab_size: int = VOCABULARY, seed: int = 0, labels: int | None = None
) -> TinyText:
    """Return a map-style data set of token sequences, no two of them equal, for `causal_lm` or `classifier`.

    A sample is a dict: `input_ids` and `attention_mask` (all ones) are int64 [length]; `labels` are a copy of the
    `input_ids`, or one int. It collates by the default collators of torch and of transformers, and pickles.

    Each sequence counts around the vocabulary: it starts anywhere, goes on by a fixed stride, and once all starts of a
    stride are used, the next stride begins; so the next token follows from those before. No token is special (the ids
    below 4), except that with `labels` each sequence ends with the end token, which some classifiers look for.

    Args:
        samples: the number of samples.
        length: the number of tokens of each.
        vocab_size: as for the model.
        seed: the order of starts and strides depends on this and on nothing else.
        labels: None for a language model; for a classifier the number of classes: sample `i` is of class
            `i % labels`, to be told from any of its tokens.

    Raises:
        InvalidArgument: an argument out of range, or more samples than there are different sequences.
    """
    checked("samples", samples, least=1)
    checked("seed", seed, least=0)
    symbols = checked_vocabulary(vocab_size) - FIRST_TOKEN
    if labels is None:
        checked("length", length, least=1)
        return TinyText(FIRST_TOKEN + _progressions(samples, length, symbols, 1, seed), None)
    checked("length", length, least=2)
    _check_labels(labels, symbols)
    body = FIRST_TOKEN + _progressions(samples, length - 1, symbols, labels, seed)
    tokens = torch.cat([body, torch.full((samples, 1), EOS)], dim=1)
    return TinyText(tokens, [index % labels for index in range(samples)])


def vectors(samples: int = 32, *, features: int = 8, classes: int = 4, seed: int = 0) -> TinyVectors:
    """Return a map-style data set of points to classify, no two of them equal, for `torch_model`.

    A sample is a pair: a point, float32 [features], and its class, an int64 scalar. The points of a class lie around a
    centre of its own. It collates by torch's default collator and pickles.

    Args:
        samples: the number of samples; sample `i` is of class `i % classes`.
        features: the width of a point.
        classes: the number of classes.
        seed: the points depend on this and on nothing else; no global generator is touched.

    Raises:
        InvalidArgument: an argument out of range.
    """
    checked("samples", samples, least=1)
    checked("features", features, least=1)
    checked("classes", classes, least=1)
    generator = torch.Generator().manual_seed(checked("seed", seed, least=0))
    labels = torch.arange(samples) % classes
    centres = 2 * torch.randn(classes, features, generator=generator, dtype=torch.float32)
    noise = torch.randn(samples, features, generator=generator, dtype=torch.float32)
    return TinyVectors(centres[labels] + noise / 2, labels)


def _progressions(samples: int, length: int, symbols: int, classes: int, seed: int) -> torch.Tensor:
    """Return `samples` different sequences of the numbers below `symbols`, int64 [samples, length].

    Number `i` is read as digits: its class, its start, its stride, and what the stride grows by. Strides are multiples
    of the number of classes and counting wraps at such a multiple: so all numbers of a sequence are of one class.
    """
    base = symbols // classes
    most = classes * base ** min(length, 3)
    if samples > most:
        message = (
            f"{samples} samples were asked for, but there are only {most} different ways to count to {length} with "
            f"{symbols} symbols in {classes} classes. Ask for fewer, or raise length or vocab_size."
        )
        raise InvalidArgument(message)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randperm(base, generator=generator)
    strides = torch.cat([1 + torch.randperm(base - 1, generator=generator), torch.zeros(1, dtype=torch.int64)])
    index = torch.arange(samples)
    digits = index // classes
    start = index % classes + classes * starts[digits % base]
    stride = classes * strides[digits // base % base]
    growth = classes * (digits // base**2)
    position = torch.arange(length)
    grown = position * (position - 1) // 2
    return (start[:, None] + stride[:, None] * position + growth[:, None] * grown) % (classes * base)


def _check_labels(labels: object, symbols: int) -> None:
    if checked("labels", labels, least=2) > symbols:
        message = (
            f"labels is {labels!r}, but only {symbols} tokens stand for text to tell classes by. Raise vocab_size."
        )
        raise InvalidArgument(message)
