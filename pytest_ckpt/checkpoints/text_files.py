"""Files beside the tensors that a loader parses: they can be cut short as well."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

from pytest_ckpt.checkpoints.file_content import DamagedFile

if TYPE_CHECKING:
    from pathlib import Path


def check_json(path: Path, suffix: str, head: bytes, rest: BinaryIO) -> None:
    """Parse a file that is called JSON; one value a line is fine, too.

    Raises:
        DamagedFile: it is none.
    """
    if suffix != ".json":
        return
    data = head + rest.read()
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        if not _is_lines(data):
            found = f"an empty file of {len(data)} bytes" if not data.strip(b"\0 \n") else str(error)
            raise DamagedFile(path, "JSON", "a whole value", found) from error


def _is_lines(data: bytes) -> bool:
    """Say whether each line is a value, the last one ended; logs are written so."""
    lines = data.splitlines()
    try:
        values = [json.loads(line) for line in lines if line.strip()]
    except (ValueError, RecursionError):
        return False
    return len(values) > 1 and all(isinstance(value, (dict, list)) for value in values)
