"""A plain torch module for jobs without transformers: dropout, batch-norm buffers, and tied weights on request."""

from __future__ import annotations

import torch
from torch import nn

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.tiny.making import checked, checked_device, seeded

_WIDTH = 16


class TinyNetwork(nn.Module):
    """A perceptron with two inner layers; `torch_model` makes it. At module level, so that it pickles."""

    def __init__(self, *, features: int, classes: int, dropout: float, batch_norm: bool, tied: bool) -> None:
        super().__init__()
        self.enter = nn.Linear(features, _WIDTH)
        self.norm = nn.BatchNorm1d(_WIDTH) if batch_norm else nn.Identity()
        self.first = nn.Linear(_WIDTH, _WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(_WIDTH, _WIDTH)
        self.leave = nn.Linear(_WIDTH, classes)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits [batch, classes] of the inputs [batch, features]."""
        hidden = torch.relu(self.norm(self.enter(inputs)))
        hidden = self.dropout(torch.relu(self.first(hidden)))
        logits: torch.Tensor = self.leave(torch.relu(self.second(hidden)))
        return logits


def torch_model(  # noqa: PLR0913 - every one by name
    *,
    features: int = 8,
    classes: int = 4,
    dropout: float = 0.1,
    batch_norm: bool = True,
    tied: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> nn.Module:
    """Return a small plain module with random weights, for the data that `vectors` gives.

    It maps float32 [batch, features] to logits, float32 [batch, classes]. It pickles, and a deep copy keeps its ties.

    Args:
        features: the width of the input.
        classes: the width of the output.
        dropout: the probability of the one dropout layer, from 0 up to but not including 1; 0 draws no random numbers.
        batch_norm: have a batch normalisation: its running statistics are buffers, and one batch needs two samples.
        tied: have the two inner layers share one weight: the same `Parameter` under `first.weight` and `second.weight`.
        seed: the weights depend on this alone; the generators of torch, numpy and random are as they were afterwards.
        device: where the module is put after it was made on the CPU.

    Raises:
        InvalidArgument: an argument out of range, or a device that torch cannot use here.
    """
    checked("features", features, least=1)
    checked("classes", classes, least=1)
    checked("seed", seed, least=0)
    if not 0 <= dropout < 1:
        message = f"dropout is {dropout!r}, but must be at least 0 and less than 1."
        raise InvalidArgument(message)
    place = checked_device(device)
    with seeded(seed), torch.device("cpu"):
        network = TinyNetwork(features=features, classes=classes, dropout=dropout, batch_norm=batch_norm, tied=tied)
    return network.to(place)
