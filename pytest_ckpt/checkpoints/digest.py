"""Short stable names for what a tensor or a file holds, so that states can be compared long after they are gone.

A digest is 32 hexadecimal characters. That of a tensor covers dtype, shape and element bits in row-major order, and
nothing else: equal for a tensor and its copy read back from a checkpoint, whatever the strides, device or gradient.
"""

from __future__ import annotations

import ctypes
import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from typing_extensions import Buffer

_HEX_DIGITS: Final = 32
_CHUNK: Final = 1 << 20
_SAVE_CASTS: Final = {
    "torch.float32": ("bfloat16", "float16"),
    "torch.bfloat16": ("float32",),
    "torch.float16": ("float32",),
    "torch.float64": ("float32",),
}


class Unreadable(Exception):
    """A tensor's elements do not lie in memory that can be read here; `kind` says what sort of tensor it is."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind: Final = kind

    def __str__(self) -> str:
        return f"cannot read the elements of {self.kind}: expected a dense tensor with storage of its own"


def tensor_digest(tensor: torch.Tensor) -> str:
    """Name the dtype, shape and element bits of a tensor; raise `Unreadable` where there are none to read.

    Made to be called at every optimizer step: a few microseconds for a small CPU tensor, no copy of a contiguous one,
    no operation that autograd, a dispatch mode or a random generator could see.
    """
    import torch

    # Neither a mode nor a subclass of the job may see or answer what is asked here.
    with torch._C.DisableTorchFunction():  # noqa: SLF001
        return _digest(tensor)


def cast_digests(tensor: torch.Tensor) -> tuple[str, ...]:
    """Name what the tensor becomes under each cast that saving code commonly applies, its own dtype left out."""
    import torch

    with torch._C.DisableTorchFunction():  # noqa: SLF001
        names = _SAVE_CASTS.get(str(tensor.dtype), ())
        if not names:
            return ()
        host = _host_tensor(tensor)
        with torch.no_grad(), torch._C._DisableTorchDispatch():  # noqa: SLF001
            return tuple(_digest(host.to(getattr(torch, name))) for name in names)


def element_bytes(tensor: torch.Tensor) -> bytes:
    """Copy out the elements of a tensor, row-major, in the byte order of this machine."""
    import torch

    with torch._C.DisableTorchFunction():  # noqa: SLF001
        host = _host_tensor(tensor)
        return ctypes.string_at(host.data_ptr(), host.nbytes)


def raw_digest(dtype: str, shape: Sequence[int], data: Buffer) -> str:
    """Name the tensor whose dtype ("float32"), shape and row-major bytes (this machine's order) are given."""
    hasher = hashlib.sha256(f"torch.{dtype} {tuple(shape)}\n".encode())
    hasher.update(data)
    return hasher.hexdigest()[:_HEX_DIGITS]


def bytes_digest(data: Buffer) -> str:
    """Name a piece of memory by its content."""
    # SHA-256 was the fastest safe hash measured: it runs in hardware on current CPUs.
    return hashlib.sha256(data).hexdigest()[:_HEX_DIGITS]


def file_digest(path: Path) -> str:
    """Name a file by its content; equal to `bytes_digest` of what it holds."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()[:_HEX_DIGITS]


def _digest(tensor: torch.Tensor) -> str:
    host = _host_tensor(tensor)
    hasher = hashlib.sha256(f"{host.dtype} {tuple(host.shape)}\n".encode())
    if size := host.nbytes:
        hasher.update((ctypes.c_char * size).from_address(host.data_ptr()))
    return hasher.hexdigest()[:_HEX_DIGITS]


def _host_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Answer the tensor itself if its elements lie row-major in this process's memory, else a copy where they do."""
    try:
        if (kind := _unreadable_kind(tensor)) is not None:
            raise Unreadable(kind)
        if tensor.is_cpu and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg():
            return tensor
        return _host_copy(tensor)
    except RuntimeError as error:
        kind = f"a {type(tensor).__name__} ({str(error).partition(chr(10))[0]})"
        raise Unreadable(kind) from error


def _host_copy(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        kind = "a CUDA tensor while a CUDA graph is captured"
        raise Unreadable(kind)
    with torch.no_grad(), torch._C._DisableTorchDispatch():  # noqa: SLF001
        return tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()


def _unreadable_kind(tensor: torch.Tensor) -> str | None:
    import torch

    cls = type(tensor)
    if cls is not torch.Tensor and cls is not torch.nn.Parameter and _keeps_elements_elsewhere(tensor):
        return f"a {cls.__name__}"
    if tensor.is_meta:
        return "a meta tensor"
    if tensor.layout is not torch.strided:
        return f"a tensor with layout {tensor.layout}"
    if tensor.is_quantized:
        return f"a quantized tensor ({tensor.dtype})"
    if tensor.is_nested:
        return "a nested tensor"
    return None if _is_backed(tensor) else "a tensor whose storage was freed or lies elsewhere"


def _keeps_elements_elsewhere(tensor: torch.Tensor) -> bool:
    """Tell wrappers (DTensor, FakeTensor, ...) from subclasses that only add behaviour to a tensor of their own."""
    import torch

    if type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
        return torch.nn.parameter.is_lazy(tensor)
    from torch._subclasses.fake_tensor import FakeTensor  # warns when it is asked for its memory

    return isinstance(tensor, FakeTensor) or tensor.data_ptr() == 0


def _is_backed(tensor: torch.Tensor) -> bool:
    """Check that the storage reaches as far as the tensor: to read one that was resized to zero kills the process."""
    if tensor.data_ptr() == 0:  # raises for the wrapped tensors of functorch
        return tensor.numel() == 0
    if tensor.is_contiguous():
        end = tensor.storage_offset() * tensor.itemsize + tensor.nbytes
    else:
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        last = tensor.storage_offset() + sum((length - 1) * stride for length, stride in steps)
        end = (last + 1) * tensor.itemsize
    return end <= tensor.untyped_storage().nbytes()
