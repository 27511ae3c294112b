"""Noticing saves as they begin, whichever library writes: wraps what torch and safetensors write with."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.runs.imports import after_import

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.runs.probe import Probe

#: Seconds that saves wait together, at most.
_AT_MOST: Final = 8.0
#: Seconds between two calls of one save; a call that is held back takes longer.
_AT_ONCE: Final = 0.04
_WRITES: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def notice_saves(probe: Probe, root: Path, *, delay: float = 0.0) -> None:
    """Tell `probe` of every save that this process begins: torch, safetensors, and files opened for writing in `root`.

    Args:
        delay: seconds that one waits for before it begins, in a thread or process that does not train: torch opens its files
            with the interpreter's lock held, and while that is slow, nothing else goes on.
    """
    import torch  # the child has it

    delayed = _Delayed(delay)
    torch.save = _announcing(delayed(torch.save), probe, root, by="torch.save", argument=1, name="f")
    torch.serialization.save = torch.save
    after_import("safetensors.torch", lambda module: _wrap_safetensors(module, probe, root, delayed))
    sys.addaudithook(_on_open(probe, root))


def _wrap_safetensors(module: Any, probe: Probe, root: Path, delayed: _Delayed) -> None:  # noqa: ANN401 - a foreign module
    module.serialize_file = _announcing(
        delayed(module.serialize_file), probe, root, by="safetensors", argument=1, name="filename"
    )


class _Delayed:
    """Has functions wait, one after the other, but in the thread that runs now.

    A thread that calls one right after the other, as for each tensor of a distributed checkpoint, waits once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process, self._thread = os.getpid(), threading.get_ident()
        self._turn = threading.Lock()
        self._left = _AT_MOST
        self._last = threading.local()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self._seconds:
            return function

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - any writer's signature
            self._wait()
            try:
                return function(*args, **kwargs)
            finally:
                self._last.call = time.monotonic()

        return wrapper

    def _wait(self) -> None:
        if self._left <= 0 or time.monotonic() - getattr(self._last, "call", 0.0) < _AT_ONCE:
            return
        if os.getpid() != self._process:  # forked, perhaps while a thread had its turn
            time.sleep(self._seconds)
        elif threading.get_ident() != self._thread:
            with self._turn:
                self._left -= self._seconds
                time.sleep(self._seconds)


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
