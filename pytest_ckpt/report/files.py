"""Report files on disk."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_ckpt.errors import HarnessError

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a report, so that a reader finds the whole of it or what was there before.

    Raises:
        HarnessError: the file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(encoded(text))
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        message = (
            f"the checkpoint report can't be written to {path}: {error.strerror}\n"
            "name a file in a directory that can be written to, with --ckpt-report or the ini option ckpt_report"
        )
        raise HarnessError(message) from error


def encoded(text: str) -> bytes:
    """Return the bytes of a report.

    Half of a surrogate pair, as in a file name that is no UTF-8, becomes the escape that JSON has for it.
    """
    return text.encode(errors="backslashreplace")
