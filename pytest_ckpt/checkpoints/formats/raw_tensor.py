"""A tensor as a file states it: a view of raw memory, named and measured without its library where that can be done."""

from __future__ import annotations

import math
import operator
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.digest import element_bytes, raw_digest
from pytest_ckpt.checkpoints.file_content import DamagedFile, TensorEntry
from pytest_ckpt.checkpoints.formats.storage import Storage, is_floating, item_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Up to so many bytes plain Python measures a norm sooner than torch is imported.
_LARGE: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawTensor:
    """A strided view of a storage; `offset` and `stride` count elements of `dtype`."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage: Storage
    conjugated: bool = False
    negated: bool = False

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def item_size(self) -> int:
        """Bytes an element takes; a raw tensor is only made of types that have a size."""
        return item_size(self.dtype) or 0

    @property
    def end(self) -> int:
        """The element of the storage just behind the last one in use."""
        if self.numel == 0:
            return 0
        return 1 + self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def elements(self) -> memoryview:
        """Return the elements, row-major, in this machine's byte order."""
        if self.numel == 0:
            return memoryview(b"")
        if self.stride != row_major(self.shape) or self.conjugated or self.negated:
            return memoryview(self._gathered())
        start = self.offset * self.item_size
        return self.storage.data[start : start + self.numel * self.item_size]

    def _gathered(self) -> bytes:
        import torch

        start, end = self.offset * self.item_size, self.end * self.item_size
        flat = torch.frombuffer(bytearray(self.storage.data[start:end]), dtype=torch.uint8)
        view = flat.view(getattr(torch, self.dtype)).as_strided(self.shape, self.stride)
        view = view.conj() if self.conjugated else view
        return element_bytes(view.neg() if self.negated else view)

    def entry(self, key: str) -> TensorEntry:
        """Name and measure the tensor."""
        data = self.elements()
        return TensorEntry(
            key=key,
            dtype=self.dtype,
            shape=self.shape,
            digest=raw_digest(self.dtype, self.shape, data),
            norm=_norm(self.dtype, data),
            numel=self.numel,
            constant=_is_constant(data, self.item_size),
        )


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of that shape, as torch counts them."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(shape[axis + 1], 1)
    return tuple(strides)


def check_bounds(path: Path, tensor: RawTensor) -> RawTensor:
    """Return the tensor if all of it lies in its storage.

    Raises:
        DamagedFile: it reaches outside, so that its elements would be other memory.
    """
    sizes = (tensor.offset, *tensor.shape, *tensor.stride)
    has = len(tensor.storage.data) // tensor.item_size
    if len(tensor.shape) != len(tensor.stride) or min(sizes) < 0 or tensor.end > has:
        view = f"shape {tensor.shape}, strides {tensor.stride}, offset {tensor.offset}"
        raise DamagedFile(path, f"a {tensor.dtype} tensor", f"a view of its {has} elements", view)
    return tensor


def _is_constant(data: memoryview, size: int) -> bool:
    first = bytes(data[:size])
    if data[-size:] != first or data[size : 2 * size] not in (first, b""):
        return False
    return data.tobytes() == first * (len(data) // size)


def _norm(dtype: str, data: memoryview) -> float | None:
    if not is_floating(dtype):
        return None
    if not data:
        return 0.0
    if (len(data) > _LARGE or dtype.startswith("float8")) and (norm := _norm_by_torch(dtype, data)) is not None:
        return norm
    values: Sequence[float]
    if dtype in {"float32", "complex64"}:
        values = data.cast("f")
    elif dtype in {"float64", "complex128"}:
        values = data.cast("d")
    elif dtype in {"float16", "complex32"}:
        values = struct.unpack(f"={len(data) // 2}e", data)
    elif dtype == "bfloat16":
        values = _widened(data).cast("f")
    else:
        return None
    return math.sqrt(sum(map(operator.mul, values, values)))


def _widened(data: memoryview) -> memoryview:
    """Turn bfloat16 into float32, of which it is the upper half."""
    wide = bytearray(2 * len(data))
    upper = 2 if sys.byteorder == "little" else 0
    wide[upper::4] = data[0::2]
    wide[upper + 1 :: 4] = data[1::2]
    return memoryview(wide)


def _norm_by_torch(dtype: str, data: memoryview) -> float | None:
    try:
        import torch
    except ImportError:
        return None
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(getattr(torch, dtype))
    real = torch.view_as_real(flat) if flat.is_complex() else flat
    return float(torch.linalg.vector_norm(real.to(torch.float64)))
