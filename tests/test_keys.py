"""What torch refuses to read is told from the names in a file; torch itself is asked whether that is so."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime as dt
import enum
import fractions
import pathlib
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from pytest_ckpt.checkpoints.keys import refused
from pytest_ckpt.checkpoints.reading import read_tensors

if TYPE_CHECKING:
    from pathlib import Path


class Colour(enum.Enum):
    """A choice."""

    RED = 1


@dataclasses.dataclass
class Config:
    """A class of a job."""

    lr: float = 0.1


OBJECTS: dict[str, Any] = {
    "plain": {"a": [1, 2.5, "text", None, True], "b": (1, (2, 3)), "c": {1, 2}, "d": b"bytes", "e": 2**70},
    "bytearray": bytearray(b"x"),
    "complex": 1 + 2j,
    "ordered": collections.OrderedDict(a=1),
    "counter": collections.Counter("aab"),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "frozenset": frozenset({1}),
    "slice": slice(1, 2),
    "range": range(3),
    "deque": collections.deque([1]),
    "python random": random.getstate(),
    "date": dt.date(2020, 1, 1),
    "path": pathlib.Path("a"),
    "enum": Colour.RED,
    "dataclass": Config(),
    "namespace": argparse.Namespace(lr=1),
    "fraction": fractions.Fraction(1, 3),
    "function": np.zeros,
    "class": Config,
    "numpy array": np.zeros(3),
    "numpy number": np.float64(1.5),
    "numpy random": np.random.get_state(),  # noqa: NPY002 - as the Trainer saves it
    "tensor": torch.arange(4),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "eight bits": torch.ones(2).to(torch.float8_e4m3fn),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "buffer": torch.nn.Buffer(torch.ones(2)),
    "sparse": torch.eye(3).to_sparse(),
    "size": torch.Size([1, 2]),
    "dtype": torch.float16,
    "device": torch.device("cpu"),
    "layout": torch.strided,
    "generator": torch.get_rng_state(),
    "storage": torch.ones(2).untyped_storage(),
    "module": torch.nn.Linear(1, 1),
    "state dict": torch.nn.BatchNorm1d(2).state_dict(),
    "optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict(),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", OBJECTS)
def test_torch_agrees(tmp_path: Path, name: str, *, legacy: bool) -> None:
    """A file has a refused name exactly where torch.load(weights_only=True) raises."""
    if legacy and name in {"eight bits", "storage"}:
        pytest.skip("torch itself can't read it back")
    path = tmp_path / "file.pt"
    torch.save({"object": OBJECTS[name]}, path, _use_new_zipfile_serialization=not legacy)
    assert _torch_reads(path) == (not refused(read_tensors(path)))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_torch_agrees_on_protocols(tmp_path: Path, protocol: int) -> None:
    """A higher protocol of pickle has instructions that torch does not know."""
    path = tmp_path / "file.pt"
    torch.save({"a": {"b": [1, "text"]}, "t": torch.ones(2)}, path, pickle_protocol=protocol)
    names = refused(read_tensors(path))
    assert _torch_reads(path) == (not names)
    assert not names or f"pickle protocol {protocol}" in names


def test_names_are_those_of_python_3(tmp_path: Path) -> None:
    """Protocol 2 has the names of Python 2; they are translated."""
    torch.save({"a": {1}, "b": range(3)}, tmp_path / "file.pt")
    assert ("builtins.range",) == refused(read_tensors(tmp_path / "file.pt"))


def _torch_reads(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocol 3, which it reads
            torch.load(path, weights_only=True)
    except Exception:  # noqa: BLE001 - as torch refuses
        return False
    return True
