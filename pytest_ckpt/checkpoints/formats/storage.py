"""Element types and the raw memory that tensors of a file are views of."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Final

_ITEM_SIZES: Final = {
    "bool": 1,
    "bfloat16": 2,
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "float4_e2m1fn_x2": 1,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "qint32": 4,
    "qint8": 1,
    "quint2x4": 1,
    "quint4x2": 1,
    "quint8": 1,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"{sign}int{bits}": 1 for sign in ("", "u") for bits in range(1, 8)},
}
_FLOAT8: Final = re.compile(r"float8_\w+")


@dataclass(slots=True, kw_only=True, eq=False)
class Storage:
    """Memory that one or more tensors of a file view, in the byte order of this machine.

    It is a part of the file's own buffer, so that writing into it changes the file; read-only where it is a copy.
    """

    dtype: str
    data: memoryview


def item_size(dtype: str) -> int | None:
    """Return how many bytes an element of torch's type of that name takes; None if there is no such type here."""
    if _FLOAT8.fullmatch(dtype):
        return 1
    return _ITEM_SIZES.get(dtype)


def is_floating(dtype: str) -> bool:
    """Tell types whose elements are real or complex numbers, one an item."""
    return dtype.startswith(("float", "bfloat", "complex")) and dtype != "float4_e2m1fn_x2"


def in_native_order(data: memoryview, byte_order: str, dtype: str) -> memoryview:
    """Return the data in this machine's byte order: itself, or a read-only copy with each number's bytes turned."""
    size = item_size(dtype) or 1
    unit = size // 2 if dtype.startswith("complex") else size
    if byte_order == sys.byteorder or unit == 1:
        return data
    turned = bytearray(len(data))
    for position in range(unit):
        turned[position::unit] = data[unit - 1 - position :: unit]
    return memoryview(bytes(turned))
