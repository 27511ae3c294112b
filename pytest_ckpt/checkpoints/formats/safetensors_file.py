"""The safetensors format: the length of a header, the header as JSON, the bytes of all tensors without gaps."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.file_content import DamagedFile
from pytest_ckpt.checkpoints.formats.document import Document
from pytest_ckpt.checkpoints.formats.pickled_objects import Unread
from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor, row_major
from pytest_ckpt.checkpoints.formats.storage import Storage, in_native_order, item_size
from pytest_ckpt.checkpoints.formats.tree import Branch

if TYPE_CHECKING:
    from pathlib import Path

#: How many bytes tell the length of the header.
PREFIX: Final = 8
_METADATA: Final = "__metadata__"
_DTYPES: Final = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """A tensor as the header describes it; positions count from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def open_safetensors(path: Path, data: memoryview) -> Document:
    """Open a safetensors file and check its header against its size.

    Raises:
        DamagedFile: the file is shorter or longer than its header says, or the header is none.
    """
    header, start = _header(path, data)
    metadata = header.pop(_METADATA, {})
    described = [_described(path, name, value) for name, value in header.items()]
    _check_layout(path, described, len(data) - start)
    root = {tensor.name: _tensor(path, tensor, data[start + tensor.begin : start + tensor.end]) for tensor in described}
    branch = Branch(root={_METADATA: metadata, **root})
    return Document(path=path, format="safetensors", branches=(branch,), rewritten=lambda: data)


def _header(path: Path, data: memoryview) -> tuple[dict[str, object], int]:
    if len(data) < PREFIX:
        raise DamagedFile(path, "length of the header", f"{PREFIX} bytes", f"a file of {len(data)} bytes")
    end = PREFIX + int.from_bytes(data[:PREFIX], "little")
    if end > len(data):
        raise DamagedFile(path, "header", f"{end} bytes or more, as it says itself", f"a file of {len(data)} bytes")
    try:
        header = json.loads(data[PREFIX:end].tobytes())
    except (ValueError, RecursionError) as error:
        raise DamagedFile(path, "header", "JSON", f"{error}") from error
    if not isinstance(header, dict):
        raise DamagedFile(path, "header", "a JSON object", type(header).__name__)
    return header, end


def _described(path: Path, name: str, value: object) -> _Described:
    match value:
        case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [int() as begin, int() as end]}:
            if all(isinstance(size, int) and size >= 0 for size in shape):
                return _Described(name=name, dtype=dtype, shape=tuple(shape), begin=begin, end=end)
    raise DamagedFile(path, f"header, tensor {name}", "dtype, shape and data_offsets", f"{value}"[:100])


def _check_layout(path: Path, described: list[_Described], size: int) -> None:
    position = 0
    for tensor in sorted(described, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != position or tensor.end < tensor.begin:
            found = f"bytes {tensor.begin} to {tensor.end}"
            raise DamagedFile(path, f"position of tensor {tensor.name}", f"a begin at byte {position}", found)
        position = tensor.end
    if position != size:
        raise DamagedFile(path, "data of the tensors", f"{position} bytes, as the header says", f"{size} bytes")


def _tensor(path: Path, tensor: _Described, data: memoryview) -> RawTensor | Unread:
    dtype = _DTYPES.get(tensor.dtype)
    size = item_size(dtype) if dtype else None
    if dtype is None or size is None:
        return Unread(f"a tensor of type {tensor.dtype}")
    if len(data) != math.prod(tensor.shape) * size:
        expected = f"{math.prod(tensor.shape) * size} bytes for {tensor.dtype} {tensor.shape}"
        raise DamagedFile(path, f"data of tensor {tensor.name}", expected, f"{len(data)} bytes")
    storage = Storage(dtype=dtype, data=in_native_order(data, "little", dtype))
    return RawTensor(dtype=dtype, shape=tensor.shape, stride=row_major(tensor.shape), offset=0, storage=storage)
