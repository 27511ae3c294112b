"""Reads the files that a training job wrote, as data, whatever wrote them; and changes tensors in a copy of one.

Nothing that a file names is imported or called: a checkpoint with arbitrary objects in it can be read, an evil one too.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.file_content import (
    DamagedFile,
    FileContent,
    NotACheckpointFile,
    ReadError,
    TensorEntry,
)
from pytest_ckpt.checkpoints.formats import numpy_files, safetensors_file, torch_files, torch_storage
from pytest_ckpt.checkpoints.formats.memory import memory_of
from pytest_ckpt.checkpoints.formats.nodes import in_python_3
from pytest_ckpt.checkpoints.formats.zip_archive import open_zips
from pytest_ckpt.checkpoints.text_files import check_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_ckpt.checkpoints.formats.document import Document

__all__ = ["DamagedFile", "FileContent", "NotACheckpointFile", "ReadError", "TensorEntry", "perturb", "read_tensors"]

_HEAD: Final = 32
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLE: Final = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
#: Suffixes under which only files of tensors are written: with another beginning, such a file is damaged.
_TENSOR_SUFFIXES: Final = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".npy", ".npz", ".pkl"})
#: This one is also used for other things, such as tokens of a data set.
_LOOSE_SUFFIX: Final = ".bin"


def read_tensors(path: Path, *, name: str | None = None) -> FileContent:
    """Return what a file holds: a digest for each tensor, plain values, whether an optimizer's state is among them.

    Args:
        path: a file that nobody is writing any more.
        name: the file's own name, where `path` is a stored copy under another one.

    Raises:
        NotACheckpointFile: the file is of no format that holds tensors.
        DamagedFile: it is of one, and breaks its rules.
        ReadError: it is sound, and holds something that cannot be read.
        OSError: the file cannot be opened.
    """
    document = _open(path, PurePath(name or path.name).suffix, bytes)
    found = document.leaves()
    tensors = [(tensor.entry(key), tensor) for key, tensor in found.tensors]
    return FileContent(
        format=document.format,
        tensors=tuple(entry for entry, _ in tensors),
        scalars=found.scalars,
        has_optimizer=found.has_optimizer,
        unreadable=found.unreadable,
        memory=memory_of(tensors),
        globals=tuple(sorted({in_python_3(named) for branch in document.branches for named in branch.globals})),
        protocol=max((branch.protocol for branch in document.branches), default=0),
    )


def perturb(path: Path, select: Callable[[str], bool]) -> int:
    """Change the floating tensors with a selected key, each element for certain and to a finite number.

    The file is replaced by a new one, of the same format and with the same times and mode; a hard link to the old one
    keeps the old content. Tensors that share memory with a selected one change with it.

    Args:
        path: a copy that may be changed; no symbolic link.
        select: told a key such as "optimizer.state.0.exp_avg", says whether to change that tensor.

    Returns:
        How many selected tensors were changed; for 0 the file is left alone.

    Raises:
        ReadError: as `read_tensors`, and where the tensors' bytes do not lie plainly in the file.
    """
    from pytest_ckpt.checkpoints.formats import rewriting

    if path.is_symlink():
        raise ReadError(path, "a symbolic link, so that another file would be changed; name the file itself")
    document = _open(path, path.suffix, bytearray)
    selected = [tensor for key, tensor in document.leaves().tensors if select(key)]
    changed = rewriting.change(path, selected)
    if changed:
        rewriting.replace(path, document.rewritten())
    return changed


def _open(path: Path, suffix: str, memory: type[bytes | bytearray]) -> Document:
    """Recognise a file by how it begins and open it."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        opener = _opener(head, suffix)
        if opener is None:
            check_json(path, suffix, head, file)
            raise _unknown(path, suffix, head)
        data = memoryview(memory(head + file.read()))
    return opener(path, data)


def _opener(head: bytes, suffix: str) -> Callable[[Path, memoryview], Document] | None:
    if head.startswith(_ZIP):
        return _open_archive
    if head.startswith(_PICKLE):
        return torch_files.open_torch_legacy if torch_storage.LEGACY_MAGIC in head else torch_files.open_pickle
    if head.startswith(numpy_files.NPY_MAGIC):
        return numpy_files.open_npy
    if suffix == ".safetensors" or head[safetensors_file.PREFIX :].startswith((b'{"', b"{}")):
        return safetensors_file.open_safetensors
    return None


def _open_archive(path: Path, data: memoryview) -> Document:
    archive, *others = open_zips(path, data)
    if others:
        return torch_files.open_torch_shard(path, (archive, *others))
    if archive.records and all(name.endswith(numpy_files.NPY_SUFFIX) for name in archive.records):
        return numpy_files.open_npz(path, archive)
    return torch_files.open_torch_zip(path, archive)


def _unknown(path: Path, suffix: str, head: bytes) -> ReadError:
    begin = f"a beginning of {head[:8].hex(' ')}" if head else "an empty file"
    if suffix in _TENSOR_SUFFIXES or (suffix == _LOOSE_SUFFIX and not any(head)):
        return DamagedFile(path, "beginning of the file", "that of a safetensors, zip, pickle or numpy file", begin)
    return NotACheckpointFile(path, f"no file of tensors: found {begin}")
