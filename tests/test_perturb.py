"""A control needs a checkpoint in which chosen tensors are wrong for certain and everything else is untouched."""

from __future__ import annotations

import io
import os
import pickle
import stat
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pytest_ckpt.checkpoints.digest import tensor_digest
from pytest_ckpt.checkpoints.reading import ReadError, perturb, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

FLOATS = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e8m0fnu,
)
FORMATS: dict[str, tuple[Callable[[Any, Path], object], Callable[[Path], Any]]] = {
    "safetensors": (save_file, load_file),
    "torch-zip": (torch.save, torch.load),
    "torch-zip mapped": (torch.save, lambda path: torch.load(path, mmap=True)),
    "torch-legacy": (
        lambda tree, path: torch.save(tree, path, _use_new_zipfile_serialization=False),
        torch.load,
    ),
    "pickle": (
        lambda tree, path: path.write_bytes(pickle.dumps(tree)),
        lambda path: pickle.loads(path.read_bytes()),  # noqa: S301 - the official loader
    ),
}
#: Torch writes 8-bit floats in these and cannot load them again.
WITHOUT_FLOAT8 = (FORMATS["torch-legacy"][0], FORMATS["pickle"][0])
formats = pytest.mark.parametrize(("save", "load"), FORMATS.values(), ids=FORMATS)


def everything(_: str) -> bool:
    """Select all tensors."""
    return True


@formats
@settings(deadline=None, max_examples=40)
@given(dtype=st.sampled_from(FLOATS), data=st.binary(min_size=16, max_size=64))
def test_selected_tensors_change_in_every_element_and_the_others_in_none(
    save: Callable[[Any, Path], object], load: Callable[[Path], Any], dtype: torch.dtype, data: bytes
) -> None:
    """Whatever bits a tensor had, NaN included, its numbers are others then, and finite; the loader takes the file."""
    assume(dtype.itemsize > 1 or save not in WITHOUT_FLOAT8)
    chosen = torch.frombuffer(bytearray(data[: len(data) // 16 * 16]), dtype=torch.uint8).view(dtype)
    tree = {"chosen": chosen, "other": torch.arange(5.0), "count": torch.arange(3)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        save(tree, path)
        assert 1 == perturb(path, lambda key: key in {"chosen", "count"})
        found = load(path)
        digests = {entry.key: entry.digest for entry in read_tensors(path).tensors}
    size = dtype.itemsize
    before, after = (bits.view(torch.uint8).view(-1, size) for bits in (chosen, found["chosen"]))
    assert bool((before != after).any(dim=1).all())
    assert bool(torch.isfinite(found["chosen"].to(torch.complex128)).all())
    assert tree["count"].equal(found["count"])
    assert tree["other"].equal(found["other"])
    assert {key: tensor_digest(tensor) for key, tensor in found.items()} == digests


def test_numbers_move_far_enough_to_be_seen_in_training(tmp_path: Path) -> None:
    """Each number moves by a quarter or more and keeps its sign; one that would overflow is halved."""
    largest = torch.finfo(torch.float32).max
    torch.save(torch.tensor([0.0, -0.5, 2.0, -0.0, largest, float("inf"), float("nan")]), tmp_path / "file.pt")
    assert 1 == perturb(tmp_path / "file.pt", everything)
    assert [0.25, -1.0, 3.25, -0.25, largest / 2, 1.0, 1.0] == torch.load(tmp_path / "file.pt").tolist()


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "safetensors"])  # which refuses to share memory
def test_shared_memory_changes_once_and_only_where_it_is_shown(form: str, tmp_path: Path) -> None:
    """Tied tensors stay tied, a view changes no more than it shows, an expanded one changes as a whole."""
    save, load = FORMATS[form]
    memory = torch.arange(8.0)
    tree = {"a": memory[2:4], "b": memory[2:4], "c": memory[1:3], "d": memory[7:].expand(3), "rest": memory}
    save(tree, tmp_path / "file")
    assert 4 == perturb(tmp_path / "file", lambda key: key != "rest")
    found = load(tmp_path / "file")
    assert [3.25, 4.75] == found["a"].tolist() == found["b"].tolist()
    assert [1.75, 3.25] == found["c"].tolist()
    assert [10.75] * 3 == found["d"].tolist()
    shared = [0.0, 1.75, 3.25, 4.75, 4.0, 5.0, 6.0, 10.75]
    expected = shared if form != "pickle" else memory.tolist()  # pickle copies the memory for each tensor
    assert expected == found["rest"].tolist()


def test_an_optimizer_can_be_changed_within_a_whole_checkpoint(tmp_path: Path) -> None:
    """Keys select a component of a nested checkpoint, and an optimizer loads what was changed."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tree = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": 1}
    torch.save(tree, tmp_path / "last.ckpt")
    before = {entry.key: entry.digest for entry in read_tensors(tmp_path / "last.ckpt").tensors}
    assert 6 == perturb(tmp_path / "last.ckpt", lambda key: key.startswith("optimizer."))
    after = {entry.key: entry.digest for entry in read_tensors(tmp_path / "last.ckpt").tensors}
    assert {key for key in before if key.startswith("optimizer.")} == {k for k in before if before[k] != after[k]}
    optimizer.load_state_dict(torch.load(tmp_path / "last.ckpt")["optimizer"])
    optimizer.step()
    assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())


def test_numpy_files_are_changed_in_their_own_format(tmp_path: Path) -> None:
    """Arrays in both of numpy's formats change, compressed or not."""
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(4.0)
    numpy.save(tmp_path / "one.npy", array)
    numpy.savez_compressed(tmp_path / "many.npz", a=array, b=array)
    assert 1 == perturb(tmp_path / "one.npy", everything)
    assert 1 == perturb(tmp_path / "many.npz", lambda key: key == "b")
    assert [0.25, 1.75, 3.25, 4.75] == numpy.load(tmp_path / "one.npy").tolist()
    assert [array.tolist(), [0.25, 1.75, 3.25, 4.75]] == [numpy.load(tmp_path / "many.npz")[k].tolist() for k in "ab"]


def test_a_rewritten_archive_keeps_names_order_and_alignment(tmp_path: Path) -> None:
    """The records of a changed zip file have their names and order, and begin where memory can be mapped."""
    torch.save({"a": torch.arange(5.0), "b": torch.arange(7.0)}, tmp_path / "file.pt")
    with zipfile.ZipFile(tmp_path / "file.pt") as archive:
        names = archive.namelist()
    perturb(tmp_path / "file.pt", everything)
    content = (tmp_path / "file.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert names == archive.namelist()
        assert archive.testzip() is None
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", content, info.header_offset + 26)
            assert 0 == (info.header_offset + 30 + name + extra) % 64


def test_only_the_named_file_is_replaced(tmp_path: Path) -> None:
    """The file is a new one with the old mode and times, a hard link keeps the old content, nothing else appears."""
    path = tmp_path / "file.pt"
    torch.save(torch.ones(2), path)
    os.link(path, tmp_path / "link")
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 2 * 10**18))
    before = path.read_bytes()
    assert 1 == perturb(path, everything)
    assert before == (tmp_path / "link").read_bytes()
    assert path.stat().st_ino != (tmp_path / "link").stat().st_ino
    assert (0o640, 2 * 10**18) == (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns)
    assert {"file.pt", "link"} == {found.name for found in tmp_path.iterdir()}


def test_a_file_without_a_selected_floating_tensor_is_left_alone(tmp_path: Path) -> None:
    """Integers are not changed, and where nothing is, the file stays the same one."""
    path = tmp_path / "file.pt"
    torch.save({"count": torch.arange(3), "weight": torch.ones(2), "empty": torch.ones(0)}, path)
    inode = path.stat().st_ino
    assert 0 == perturb(path, lambda key: key != "weight")
    assert inode == path.stat().st_ino


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """What a link points to may be evidence or another checkpoint: it is not changed through the link."""
    torch.save(torch.ones(2), tmp_path / "file.pt")
    (tmp_path / "latest.pt").symlink_to("file.pt")
    with pytest.raises(ReadError, match="symbolic link"):
        perturb(tmp_path / "latest.pt", everything)
    assert [1.0, 1.0] == torch.load(tmp_path / "file.pt").tolist()


def test_what_is_not_stored_plainly_is_refused(tmp_path: Path) -> None:
    """An array that a pickle holds as text is not left unchanged in silence."""
    numpy = pytest.importorskip("numpy")
    torch.save({"array": numpy.arange(3.0)}, tmp_path / "file.pt")
    content = (tmp_path / "file.pt").read_bytes()
    with pytest.raises(ReadError, match="a float64 tensor is stored as text or in foreign byte order"):
        perturb(tmp_path / "file.pt", everything)
    assert content == (tmp_path / "file.pt").read_bytes()
