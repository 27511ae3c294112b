"""Numpy's own files: one array (.npy), or a zip archive of such files (.npz)."""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.file_content import DamagedFile, ReadError
from pytest_ckpt.checkpoints.formats import numpy_objects
from pytest_ckpt.checkpoints.formats.document import Document
from pytest_ckpt.checkpoints.formats.pickled_objects import Unread
from pytest_ckpt.checkpoints.formats.tree import Branch

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor
    from pytest_ckpt.checkpoints.formats.zip_archive import ZipArchive

#: How a file of one array begins.
NPY_MAGIC: Final = b"\x93NUMPY"
NPY_SUFFIX: Final = ".npy"


def open_npy(path: Path, data: memoryview) -> Document:
    """Open a file of one array; its key is empty."""
    branch = Branch(root=_array(path, path.name, data))
    return Document(path=path, format="numpy", branches=(branch,), rewritten=lambda: data)


def open_npz(path: Path, archive: ZipArchive) -> Document:
    """Open an archive of arrays; each one's key is its name."""
    arrays = {name.removesuffix(NPY_SUFFIX): _array(path, name, data) for name, data in archive.records.items()}
    return Document(path=path, format="numpy", branches=(Branch(root=arrays),), rewritten=archive.rewritten)


def _array(path: Path, name: str, data: memoryview) -> RawTensor | Unread:
    try:
        import numpy.lib.format
    except ImportError as error:
        raise ReadError(path, "a numpy file, and numpy is not installed; install it to have the file read") from error
    stream = BytesIO(data)
    try:
        version = numpy.lib.format.read_magic(stream)
        read = numpy.lib.format.read_array_header_1_0 if version == (1, 0) else numpy.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError) as error:
        raise DamagedFile(path, f"header of array {name}", "a numpy header", f"{error}") from error
    kind = numpy_objects.TypeCode(
        code=f"{dtype.kind}{dtype.itemsize}", byte_order="big" if dtype.str.startswith(">") else "little"
    )
    if kind.torch_name is None:
        return Unread(f"a numpy array of type {dtype}")
    elements = data[stream.tell() :]
    if len(elements) != (size := math.prod(shape) * dtype.itemsize):
        raise DamagedFile(path, f"array {name}", f"{size} bytes for {dtype} {shape}", f"{len(elements)} bytes")
    return numpy_objects.array(kind, shape, elements, order="F" if fortran else "C")
