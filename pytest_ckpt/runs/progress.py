"""How far a run has come, read from its journal while it goes on: that costs the job nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_STEP: Final = b'{"event":"step_end"'
_BEGINS: Final = b'{"event":"rehearsal"'
_FACTS: Final = b'{"event":"framework"'


@dataclass(frozen=True, slots=True)
class Going:
    """A run that goes on.

    Attributes:
        steps: how many are done.
        planned: how many there are to be; None where that is not known.
        rehearsed: whether the schedule is rehearsed.
    """

    steps: int = 0
    planned: int | None = None
    rehearsed: bool = False


class Follower:
    """Reads what has been added to a journal since it last looked."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._read = 0
        self._rest = b""
        self._going = Going()

    def look(self) -> Going:
        """Return how far the run has come by now."""
        try:
            with self._journal.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:  # not begun
            return self._going
        self._read += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        planned, rehearsed = self._going.planned, self._going.rehearsed
        rehearsed |= any(line.startswith(_BEGINS) for line in lines)
        for line in [line for line in lines if line.startswith(_FACTS)][-1:]:
            planned = json.loads(line)["data"].get("planned_steps", planned)
        last = next((line for line in reversed(lines) if line.startswith(_STEP)), b"")
        steps = int(json.loads(last)["data"]["step"]) if last else self._going.steps
        self._going = Going(steps, planned, rehearsed)
        return self._going
