"""Makes the tiny model of one architecture and trains it for two steps; run in a process of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt import tiny
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

STEPS: Final = 2
_LONGEST: Final = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What became of one architecture.

    Attributes:
        model_type: its name.
        size: bytes of the weights; 0 if there is no model.
        problem: why it does not train; empty if it does.
        seconds: how long it took.
    """

    model_type: str
    size: int = 0
    problem: str = ""
    seconds: float = 0.0


def train(model_type: str) -> Trained:
    """Make the model, train it and say what became of it."""
    start, size = time.monotonic(), 0
    try:
        model = tiny.causal_lm(model_type)
        size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        problem = _trained(model)
    except Exception as error:  # noqa: BLE001 - an architecture may raise anything
        problem = _said(error)
    return Trained(model_type=model_type, size=size, problem=problem, seconds=time.monotonic() - start)


def _trained(model: PreTrainedModel) -> str:
    """Train for two steps; return what was wrong."""
    import torch

    torch.manual_seed(0)
    before = _copies(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    model.train()
    for step in range(STEPS):
        loss = model(**_batch(step)).loss
        if loss is None or not torch.isfinite(loss):
            return f"the loss of step {step + 1} is {None if loss is None else loss.item()}"
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(before[name], weight)}
    return _still(model, moved)


def _still(model: PreTrainedModel, moved: set[str]) -> str:
    """Say what should have moved and did not; the parts that see or hear are left alone by text.

    The token embeddings are what the gradient reaches last.
    """
    embeddings = model.get_input_embeddings()
    tokens = {id(weight) for weight in embeddings.parameters()}
    reached = [name for name, weight in model.named_parameters() if id(weight) in tokens]
    if not set(reached) & moved:
        return "the token embeddings did not move"
    return "" if len(moved) > len(reached) + 1 else f"{len(moved)} weights moved"


def _copies(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def _batch(step: int) -> dict[str, torch.Tensor]:
    import torch

    samples = [tiny.text()[2 * step + place] for place in range(2)]
    return {name: torch.stack([torch.as_tensor(sample[name]) for sample in samples]) for name in samples[0]}


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, InvalidArgument):  # which ends in advice that is the same for all
        text = text.partition(": ")[2].partition(". Set the fields")[0]
    else:
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
