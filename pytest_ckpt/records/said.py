"""What a job said while it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytest_ckpt.records.codec import Record

#: The source of what no text says: a framework's own callback that a save is finished.
CALLBACK: Final = "callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said(Record):
    """One line of a job's output, or what its framework told.

    Attributes:
        step: how many steps were done.
        source: `stdout`, `stderr` or `log`; `callback` where a framework told that a save is finished.
        text: the line; empty for a callback.
    """

    step: int
    source: str
    text: str = ""
