"""What a job saved is read back under the digests of its live tensors, whatever saved it and whatever else is there."""

from __future__ import annotations

import argparse
import enum
import pickle
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pytest_ckpt.checkpoints.digest import tensor_digest
from pytest_ckpt.checkpoints.reading import FileContent, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e5m2,
    torch.uint16,
)
SAVERS: dict[str, Callable[[object, Path], object]] = {
    "torch-zip": torch.save,
    "torch-legacy": lambda tree, path: torch.save(tree, path, _use_new_zipfile_serialization=False),
    "pickle": lambda tree, path: path.write_bytes(pickle.dumps(tree)),
}
saver = pytest.mark.parametrize("save", [pytest.param(save, id=name) for name, save in SAVERS.items()])


def digests(content: FileContent) -> dict[str, str]:
    """Return the digest of each tensor of a file by its key."""
    return {entry.key: entry.digest for entry in content.tensors}


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Draw a tensor of any dtype, shape, stride and offset, with any bits."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = 2 + 2 * max(1, torch.Size(shape).numel())
    seed = draw(st.integers(0, 2**32 - 1))
    bits = torch.randint(0, 256, (count * 8,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    memory = bits.remainder(2).to(torch.bool)[:count] if dtype == torch.bool else bits.view(dtype)[:count]
    step, offset = draw(st.integers(1, 2)), draw(st.integers(0, 2))
    tensor = memory[offset : offset + step * torch.Size(shape).numel() : step].reshape(shape)
    if draw(st.booleans()) and shape:
        tensor = tensor.transpose(0, -1)
    if draw(st.booleans()):
        tensor = tensor.unsqueeze(0).expand(draw(st.integers(1, 3)), *tensor.shape)
    return tensor.conj() if dtype.is_complex and draw(st.booleans()) else tensor


trees = st.recursive(
    tensors() | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), children),
    max_leaves=6,
)


def _flat(tree: object, key: str = "") -> dict[str, object]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if children is None:
        return {key: tree}
    found: dict[str, object] = {}
    for name, child in children:
        found |= _flat(child, f"{key}.{name}" if key else str(name))
    return found


@saver
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees)
def test_every_saved_tree_is_read_back_under_the_digests_of_its_tensors(
    save: Callable[[object, Path], object], tree: object
) -> None:
    """Nested values of all dtypes and layouts keep their keys, digests, shapes and scalars through every saver."""
    flat = _flat(tree)
    live = {key: leaf for key, leaf in flat.items() if isinstance(leaf, torch.Tensor)}
    plain = {key: leaf for key, leaf in flat.items() if isinstance(leaf, (bool, int, float, str))}
    with tempfile.TemporaryDirectory() as folder:
        save(tree, Path(folder, "tree"))
        content = read_tensors(Path(folder, "tree"))
    assert {key: tensor_digest(tensor) for key, tensor in live.items()} == digests(content)
    assert {key: tuple(tensor.shape) for key, tensor in live.items()} == {e.key: e.shape for e in content.tensors}
    assert {key: repr(value) for key, value in plain.items()} == {k: repr(v) for k, v in content.scalars.items()}


@given(dtype=st.sampled_from(DTYPES[:5]), value=st.floats(-9, 9), numel=st.integers(0, 40), odd=st.booleans())
@settings(deadline=None, max_examples=60)
def test_an_entry_measures_its_tensor(dtype: torch.dtype, value: float, numel: int, odd: bool) -> None:  # noqa: FBT001
    """Norm, size and constancy are those that torch finds; integers have no norm."""
    tensor = torch.full((numel,), value).to(dtype)
    if odd and numel:
        tensor[-1] += 1
    with tempfile.TemporaryDirectory() as folder:
        save_file({"t": tensor}, Path(folder, "file"))
        (entry,) = read_tensors(Path(folder, "file")).tensors
    expected = None if dtype == torch.int64 else pytest.approx(float(torch.linalg.vector_norm(tensor.double())))
    assert expected == entry.norm
    assert (str(dtype), numel) == (f"torch.{entry.dtype}", entry.numel)
    assert bool((tensor == tensor[:1]).all()) == entry.constant


def test_the_norm_of_a_large_tensor_is_that_of_all_its_elements(tmp_path: Path) -> None:
    """Beyond a size torch measures; the number is the same."""
    tensors = {"real": torch.full((1_100_000,), 0.5), "complex": torch.full((600_000,), 3 + 4j, dtype=torch.complex64)}
    torch.save(tensors, tmp_path / "large.pt")
    norms = {entry.key: entry.norm for entry in read_tensors(tmp_path / "large.pt").tensors}
    assert {"real": pytest.approx(0.5 * 1_100_000**0.5), "complex": pytest.approx(5 * 600_000**0.5)} == norms


class Colour(enum.Enum):
    """An enumeration whose members a job saves."""

    RED = "red"


class Custom:
    """A class of the job with attributes, of which some are in slots."""

    __slots__ = ("__dict__", "slot")

    def __init__(self) -> None:
        self.slot = torch.arange(2.0)
        self.attribute = {"deep": [torch.arange(3.0), 4]}


class CustomDict(dict[str, Any]):
    """A mapping of the job with an attribute."""

    label = "none"


def some_function(epoch: int) -> float:
    """A schedule that is saved by reference."""
    return epoch / 2


@saver
def test_objects_of_any_class_are_walked_like_containers(
    save: Callable[[object, Path], object], tmp_path: Path
) -> None:
    """Attributes, slots, items and arguments of foreign objects are found under their names."""
    special = CustomDict(weight=torch.arange(5.0))
    special.label = "mine"
    module = torch.nn.Linear(2, 1)
    tree = {
        "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.99), colour=Colour.RED, tensor=torch.ones(2)),
        "custom": Custom(),
        "special": special,
        "schedule": some_function,
        "where": torch.device("cpu", 1),
        "dtype": torch.float32,
        "size": torch.Size([2, 3]),
        "set": {7},
        "module": module,
        Colour.RED: 1.5,
        ("a", 1): 2.5,
    }
    save(tree, tmp_path / "file.pt")
    content = read_tensors(tmp_path / "file.pt")
    expected = {
        "args.tensor": torch.ones(2),
        "custom.slot": torch.arange(2.0),
        "custom.attribute.deep.0": torch.arange(3.0),
        "special.weight": torch.arange(5.0),
        "module._parameters.weight": module.weight,
        "module._parameters.bias": module.bias,
    }
    assert {key: tensor_digest(tensor) for key, tensor in expected.items()} == digests(content)
    for key, value in {
        "args.lr": 1e-3,
        "args.betas.1": 0.99,
        "args.colour": "red",
        "custom.attribute.deep.1": 4,
        "special.label": "mine",
        "where": "cpu:1",
        "size.1": 3,
        "set.0": 7,
        "module.in_features": 2,
        "red": 1.5,
        "('a', 1)": 2.5,
    }.items():
        assert value == content.scalars[key]


@saver
def test_an_optimizer_is_recognised_and_its_state_has_keys(
    save: Callable[[object, Path], object], tmp_path: Path
) -> None:
    """A mapping with `state` and `param_groups` is an optimizer, alone or nested; a model is none."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.125)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    for name, tree in {"bare": optimizer.state_dict(), "nested": {"a": [optimizer.state_dict()]}}.items():
        save(tree, tmp_path / name)
        content = read_tensors(tmp_path / name)
        prefix = "" if name == "bare" else "a.0."
        assert content.has_optimizer
        assert 0.125 == content.scalars[f"{prefix}param_groups.0.lr"]
        moment = optimizer.state_dict()["state"][0]["exp_avg"]
        assert tensor_digest(moment) == digests(content)[f"{prefix}state.0.exp_avg"]
    save(model.state_dict(), tmp_path / "model")
    content = read_tensors(tmp_path / "model")
    assert not content.has_optimizer
    assert {} == content.scalars
    assert ["weight", "bias"] == [entry.key for entry in content.tensors]


@saver
def test_tied_tensors_parameters_and_views_are_read_as_they_look(
    save: Callable[[object, Path], object], tmp_path: Path
) -> None:
    """Each key of a shared memory has its own entry, and no more of the memory than it shows."""
    weight = torch.nn.Parameter(torch.arange(20.0).reshape(4, 5))
    marked = torch.nn.Parameter(torch.arange(2.0))
    marked.note = "kept"  # type: ignore[attr-defined]
    tree = OrderedDict(a=weight, b=weight, row=weight.detach()[2], marked=marked, column=weight.detach()[:, 1:2])
    save(tree, tmp_path / "tied")
    assert {key: tensor_digest(tensor) for key, tensor in tree.items()} == digests(read_tensors(tmp_path / "tied"))


@saver
@pytest.mark.filterwarnings("ignore:(Sparse|torch.quantize|TypedStorage|The PyTorch API of nested)")
def test_tensors_without_plain_elements_are_named_with_the_reason(
    save: Callable[[object, Path], object], tmp_path: Path
) -> None:
    """Sparse and meta tensors are reported as unreadable and leave the others readable."""
    tree = {"sparse": torch.eye(2).to_sparse(), "meta": torch.empty(2, device="meta"), "plain": torch.ones(2)}
    save(tree, tmp_path / "file")
    content = read_tensors(tmp_path / "file")
    assert {"sparse": "a sparse tensor", "meta": "a meta tensor"} == content.unreadable
    assert {"plain": tensor_digest(tree["plain"])} == digests(content)
