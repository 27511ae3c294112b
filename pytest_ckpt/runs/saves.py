"""Noticing saves as they begin, whichever library writes: wraps what torch and safetensors write with."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.runs.imports import after_import

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.runs.probe import Probe

_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def notice_saves(probe: Probe, root: Path) -> None:
    """Tell `probe` of every save that this process begins: torch, safetensors, and files opened for writing in `root`."""
    import torch  # the child has it

    torch.save = _announcing(torch.save, probe, root, by="torch.save", argument=1, name="f")
    torch.serialization.save = torch.save
    after_import("safetensors.torch", lambda module: _wrap_safetensors(module, probe, root))
    sys.addaudithook(_on_open(probe, root))


def _wrap_safetensors(module: Any, probe: Probe, root: Path) -> None:  # noqa: ANN401 - a foreign module
    module.serialize_file = _announcing(
        module.serialize_file, probe, root, by="safetensors", argument=1, name="filename"
    )


def _announcing(  # noqa: PLR0913 - what to wrap and how to announce it
    function: Callable[..., Any], probe: Probe, root: Path, *, by: str, argument: int, name: str
) -> Callable[..., Any]:
    """Return `function`, announcing the path in the argument of that position and name before it runs."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any writer's signature
        target = args[argument] if len(args) > argument else kwargs.get(name)
        path = target if isinstance(target, (str, os.PathLike)) else getattr(target, "name", None)
        if isinstance(path, (str, os.PathLike)):
            probe.saving(relative(Path(path), root), by)
        return function(*args, **kwargs)

    return wrapper


def _on_open(probe: Probe, root: Path) -> Callable[[str, tuple[Any, ...]], None]:
    prefix = str(root) + os.sep

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(args[0], str) or not args[0].startswith(prefix):
            return
        if args[2] & _WRITES and not args[2] & os.O_APPEND:  # what grows line by line is a log
            probe.opening(relative(Path(args[0]), root))

    return hook


def relative(path: Path, root: Path) -> str:
    """Return the path relative to `root` where it lies below it, else absolute."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are not to be resolved
    for base in (root, root.resolve()):
        if absolute.is_relative_to(base):
            return absolute.relative_to(base).as_posix()
    return str(absolute)
