"""A file that was cut, mixed up or never was a checkpoint is refused with what is wrong, never read in part."""

from __future__ import annotations

import json
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.serialization import set_crc32_options

from pytest_ckpt.checkpoints.digest import tensor_digest
from pytest_ckpt.checkpoints.reading import DamagedFile, FileContent, NotACheckpointFile, ReadError, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

TREE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.arange(3, dtype=torch.bfloat16)}
SAVERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda path: save_file(TREE, path),
    "torch-zip": lambda path: torch.save(TREE, path),
    "torch-legacy": lambda path: torch.save(TREE, path, _use_new_zipfile_serialization=False),
    "pickle": lambda path: path.write_bytes(pickle.dumps(TREE)),
}


def _saved(form: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        SAVERS[form](Path(folder, "file"))
        return Path(folder, "file").read_bytes()


def _read(content: bytes, name: str = "file") -> FileContent:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, name).write_bytes(content)
        return read_tensors(Path(folder, name))


@pytest.mark.parametrize("form", SAVERS)
def test_every_cut_of_a_file_is_refused(form: str) -> None:
    """However many bytes are missing at the end, the file is not read as if it were whole."""
    content = _saved(form)
    assert form == _read(content).format
    for size in range(len(content)):
        with pytest.raises(ReadError):
            _read(content[:size])


@pytest.mark.parametrize("form", SAVERS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_change_of_a_file_ends_in_another_error(form: str, data: st.DataObject) -> None:
    """Whatever bytes are changed, the file is read or refused by type."""
    content = bytearray(_saved(form))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(_read(bytes(content)), FileContent)
    except ReadError as error:
        assert str(error.path) in str(error)  # noqa: PT017 - that it is not raised is as good


def test_a_cut_safetensors_file_tells_the_sizes(tmp_path: Path) -> None:
    """The refusal of a cut file says how long it should be, how long it is, and keeps that as attributes."""
    content = _saved("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[:-10])
    with pytest.raises(DamagedFile) as caught:
        read_tensors(path)
    assert (path, "data of the tensors") == (caught.value.path, caught.value.what)
    assert ("30 bytes, as the header says", "20 bytes") == (caught.value.expected, caught.value.found)
    assert f"damaged file {path}: data of the tensors: expected 30 bytes" in str(caught.value)
    path.write_bytes(content[:40])
    with pytest.raises(DamagedFile, match=r"header: expected \d+ bytes or more, as it says itself, found a file of 40"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "data of tensor a"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "position of tensor a"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "header, tensor a"),
        ({"a": {"dtype": "F32"}}, "header, tensor a"),
        ([], "header"),
    ],
    ids=["size", "gap", "negative", "incomplete", "list"],
)
def test_a_safetensors_header_that_contradicts_itself_is_refused(header: object, what: str) -> None:
    """Sizes and positions of all tensors have to agree with their types and with each other."""
    text = json.dumps(header).encode()
    with pytest.raises(DamagedFile) as caught:
        _read(struct.pack("<Q", len(text)) + text + bytes(4), "model.safetensors")
    assert what == caught.value.what


def test_a_changed_byte_in_an_archived_storage_is_seen_by_its_sum() -> None:
    """A torn write inside a tensor of a zip file does not read as another value."""
    content = bytearray(_saved("torch-zip"))
    position = content.index(struct.pack("<6f", *range(6)))
    content[position + 5] ^= 1
    with pytest.raises(DamagedFile, match="record file/data/0: expected check sum"):
        _read(bytes(content))


def test_an_archive_without_its_directory_or_a_record_is_refused(tmp_path: Path) -> None:
    """A zip file names the part that is missing."""
    content = _saved("torch-zip")
    with pytest.raises(DamagedFile, match="zip archive: expected a directory of its records at the end, found none in"):
        _read(content[:-1])
    (tmp_path / "whole").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "whole") as whole, zipfile.ZipFile(tmp_path / "part", "w") as part:
        for info in whole.infolist():
            if not info.filename.endswith("data/0"):
                part.writestr(info, whole.read(info))
    with pytest.raises(DamagedFile, match="record file/data/0: expected 24 bytes, found"):
        read_tensors(tmp_path / "part")


def test_an_archive_that_was_saved_without_sums_is_read(tmp_path: Path) -> None:
    """Torch can leave the sums out; what it loads then is read here too."""
    set_crc32_options(False)
    try:
        torch.save(TREE, tmp_path / "file.pt")
    finally:
        set_crc32_options(True)
    expected = {key: tensor_digest(tensor) for key, tensor in TREE.items()}
    assert expected == {entry.key: entry.digest for entry in read_tensors(tmp_path / "file.pt").tensors}


def test_a_view_that_reaches_out_of_its_storage_is_refused(tmp_path: Path) -> None:
    """A shape that needs more elements than were saved is not filled up from elsewhere."""
    torch.save(torch.arange(4.0), tmp_path / "file.pt")
    with zipfile.ZipFile(tmp_path / "file.pt") as whole, zipfile.ZipFile(tmp_path / "changed.pt", "w") as changed:
        for info in whole.infolist():
            # K is BININT1, \x85 makes a tuple of it: the shape (4,) becomes (5,)
            changed.writestr(info, whole.read(info).replace(b"K\x04\x85", b"K\x05\x85"))
    with pytest.raises(DamagedFile, match=r"a float32 tensor: expected a view of its 4 elements, found shape \(5,\)"):
        read_tensors(tmp_path / "changed.pt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.txt", b"epoch 1"),
        ("trainer_state.json", b'{"global_step": 3}'),
        ("events.out.tfevents.1", struct.pack("<QI", 24, 0x12345678) + b"\x09" * 28),
        ("train.bin", bytes(range(1, 64))),
        ("empty", b""),
        ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(20)),
    ],
)
def test_a_file_of_another_kind_is_no_checkpoint(name: str, content: bytes) -> None:
    """Logs, JSON, event files, token files and pictures are told apart from damaged checkpoints."""
    with pytest.raises(NotACheckpointFile, match="no file of tensors"):
        _read(content, name)


def test_an_archive_of_other_files_is_no_checkpoint(tmp_path: Path) -> None:
    """A zip file without a pickle of tensors, such as saved source code, is none."""
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.writestr("train.py", "print()")
    with pytest.raises(NotACheckpointFile, match=r"a zip archive without tensors; it holds train\.py"):
        read_tensors(tmp_path / "code.zip")


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.safetensors", "a.npz", "a.bin", "a.pkl"])
@pytest.mark.parametrize("content", [b"", bytes(4096)], ids=["empty", "zeros"])
def test_an_unwritten_file_with_the_name_of_a_checkpoint_is_damaged(name: str, content: bytes) -> None:
    """What a crash left of a checkpoint, nothing or zeros, is damaged and not of another kind."""
    with pytest.raises(DamagedFile):
        _read(content, name)


def test_the_name_of_a_stored_copy_can_be_given(tmp_path: Path) -> None:
    """A copy under another name is judged by the name it had."""
    (tmp_path / "3f2a").write_bytes(b"")
    with pytest.raises(NotACheckpointFile):
        read_tensors(tmp_path / "3f2a")
    with pytest.raises(DamagedFile):
        read_tensors(tmp_path / "3f2a", name="optimizer.pt")


def test_errors_survive_being_sent_to_another_process(tmp_path: Path) -> None:
    """A refusal keeps its type, message and attributes through pickle."""
    for error in (DamagedFile(tmp_path, "header", "8 bytes", "3 bytes"), NotACheckpointFile(tmp_path, "text")):
        sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(error), str(error), error.path) == (type(sent), str(sent), sent.path)
