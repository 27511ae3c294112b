"""Changes tensors in the memory of an opened file and puts the changed file in the place of the old one."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ckpt.checkpoints.digest import element_bytes
from pytest_ckpt.checkpoints.file_content import ReadError
from pytest_ckpt.checkpoints.formats.storage import is_floating

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor


def change(path: Path, tensors: Iterable[RawTensor]) -> int:
    """Change every element of the floating tensors among these, once each; return how many tensors that were.

    Raises:
        ReadError: the bytes of a tensor do not lie plainly in the file.
    """
    changed = 0
    groups: dict[tuple[int, str], list[RawTensor]] = {}
    for tensor in tensors:
        if is_floating(tensor.dtype) and tensor.numel:
            groups.setdefault((id(tensor.storage), tensor.dtype), []).append(tensor)
            changed += 1
    for group in groups.values():
        _change_views(path, group)
    return changed


def replace(path: Path, content: bytes | memoryview) -> None:
    """Put a new file with that content in the place of `path`, with the times and the mode of the old one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        shutil.copystat(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _change_views(path: Path, views: list[RawTensor]) -> None:
    """Change what any of these views of one storage shows; elements that several show change once."""
    import torch

    storage, dtype = views[0].storage, views[0].dtype
    if storage.data.readonly:
        raise ReadError(
            path, f"a {dtype} tensor is stored as text or in foreign byte order: it cannot be changed there"
        )
    count = max(view.end for view in views)
    used = memoryview(storage.data)[: count * views[0].item_size]
    elements = torch.frombuffer(bytearray(used), dtype=torch.uint8).view(getattr(torch, dtype))
    positions = torch.arange(count)
    shown = torch.zeros(count, dtype=torch.bool)
    for view in views:
        shown[positions.as_strided(view.shape, view.stride, view.offset).reshape(-1)] = True
    before, after = (numbers.view(torch.uint8).view(count, -1) for numbers in (elements, _moved(elements)))
    used[:] = element_bytes(torch.where(shown[:, None], after, before))


def _moved(elements: torch.Tensor) -> torch.Tensor:
    """Move every number away from zero by half of itself and a quarter, or halve it where it would grow too large."""
    import torch

    real = torch.view_as_real(elements) if elements.is_complex() else elements
    wide = real.to(torch.float64)
    moved = wide * 1.5 + torch.copysign(torch.tensor(0.25, dtype=torch.float64), wide)
    moved = torch.where(moved.abs() <= torch.finfo(real.dtype).max, moved, wide / 2)
    moved = torch.where(torch.isfinite(wide), moved, torch.ones_like(moved))
    narrow = moved.to(real.dtype)
    return torch.view_as_complex(narrow) if elements.is_complex() else narrow
