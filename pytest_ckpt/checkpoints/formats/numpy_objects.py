"""Numpy's arrays and scalars in files, told apart without numpy as far as their bytes are plain numbers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.formats.nodes import Inert, UnexpectedNode
from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor, row_major
from pytest_ckpt.checkpoints.formats.storage import Storage, in_native_order

if TYPE_CHECKING:
    from pytest_ckpt.checkpoints.file_content import Scalar

_TORCH_NAMES: Final = {
    "b1": "bool",
    "c8": "complex64",
    "c16": "complex128",
    **{f"f{size}": f"float{size * 8}" for size in (2, 4, 8)},
    **{f"i{size}": f"int{size * 8}" for size in (1, 2, 4, 8)},
    **{f"u{size}": f"uint{size * 8}" for size in (1, 2, 4, 8)},
}
_STRUCT_CODES: Final = {
    "b1": "?",
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeCode:
    """An element type in numpy's letters, such as "f4"."""

    code: str
    byte_order: str

    @property
    def torch_name(self) -> str | None:
        """Torch's name of the type; None if torch has no such type."""
        return _TORCH_NAMES.get(self.code)


def type_code(node: object) -> TypeCode:
    """Read a pickled element type: its code is the first argument, its byte order a part of its state."""
    if not isinstance(node, Inert) or not isinstance(code := node.args[0], str):
        raise UnexpectedNode(node, "a numpy type")
    order = node.state[1] if isinstance(node.state, tuple) else "|"
    return TypeCode(code=code, byte_order="big" if order == ">" else "little")


def array(kind: TypeCode, shape: tuple[int, ...], data: memoryview, *, order: str) -> RawTensor:
    """Return an array, in C or Fortran order, as the tensor that torch makes of it."""
    dtype = kind.torch_name or kind.code
    storage = Storage(dtype=dtype, data=in_native_order(data, kind.byte_order, dtype))
    stride = row_major(shape) if order == "C" else row_major(shape[::-1])[::-1]
    return RawTensor(dtype=dtype, shape=shape, stride=stride, offset=0, storage=storage)


def number(kind: TypeCode, data: memoryview) -> Scalar | None:
    """Return a numpy scalar as a plain number; None if it is none."""
    if kind.code not in _STRUCT_CODES:
        return None
    order = ">" if kind.byte_order == "big" else "<"
    value: Scalar
    (value,) = struct.unpack(f"{order}{_STRUCT_CODES[kind.code]}", data)
    return value
