"""After which step a job said what: the length of its output is noted, and the output taken apart when it has ended."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.codec import Record
from pytest_ckpt.records.said import CALLBACK, Said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pytest_ckpt.runs.journal import Journal

#: The captured output in which a job announces what it does.
SOURCES: Final = ("stdout", "stderr", "log")
_LINE: Final = re.compile(rb"[^\r\n]+")  # progress bars end their lines with a carriage return


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard(Record):
    """How far the output had come when so many steps were done.

    Attributes:
        sizes: of the captured files, by their titles; in bytes.
        told: whether a framework told just then that a save was finished.
    """

    step: int
    sizes: dict[str, int] = field(default_factory=dict)
    told: bool = False


class Hearing:
    """Notes in the job's process how far its output has come."""

    def __init__(self, outputs: Mapping[str, Path], journal: Journal) -> None:
        self._outputs = outputs
        self._journal = journal
        self._last: dict[str, int] = {}

    def note(self, step: int, *, told: bool = False) -> None:
        """Write the sizes of the outputs, if they have grown, and whether a framework tells that a save is finished."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # a job may close them, or put something else there
                stream.flush()
        sizes = {source: _size(path) for source, path in self._outputs.items()}
        if sizes != self._last or told:
            self._last = sizes
            self._journal.write("heard", Heard(step=step, sizes=sizes, told=told))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def said(heard: Sequence[Heard], last_step: int, outputs: Mapping[str, Path]) -> tuple[Said, ...]:
    """Return the lines of the outputs, each with the step after which it was said, and what frameworks told.

    Args:
        heard: in the order of time.
        last_step: after which was said what came later than all of those.
    """
    told = [Said(step=one.step, source=CALLBACK) for one in heard if one.told]
    lines = [line for source, path in outputs.items() for line in _lines(source, path, heard, last_step)]
    return tuple(sorted((*lines, *told), key=lambda one: one.step))


def _lines(source: str, path: Path, heard: Sequence[Heard], last_step: int) -> Iterator[Said]:
    moments = [(one.sizes.get(source, 0), one.step) for one in heard]
    place = 0
    for match in _LINE.finditer(path.read_bytes() if path.exists() else b""):
        while place < len(moments) and moments[place][0] < match.end():
            place += 1
        text = match.group().decode(errors="replace").strip()
        if text:
            yield Said(step=moments[place][1] if place < len(moments) else last_step, source=source, text=text)
