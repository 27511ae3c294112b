"""The output of a command as a page shows it: some parts of it, without what differs from machine to machine."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: What stands for lines that are not shown.
LEFT_OUT: Final = "..."
_RULER: Final = re.compile(r"^(=+|_+|-+) (.+) [=_-]+$")
_TEMP: Final = re.compile(r"\S*/pytest-of-[^/\s]+/pytest-\d+/")
_SECONDS: Final = re.compile(r"\b\d+(\.\d+)?s\b( \(\d+:\d\d:\d\d\))?")  # pytest says minutes, too, where it takes one
_NUMBER: Final = re.compile(r"\b\d+\.\d+(e[+-]?\d+)?\b|\b\d+e[+-]?\d+\b")


def parts(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each line of pytest's output with the part it belongs to.

    The parts are `header`, `progress` (a line per test or file), `messages` (of failures; `message` is the first one),
    `captured` (output of jobs), `contracts` (the section on checkpoint contracts), `summary` (pytest's short one),
    `end` (the last line), and `other`.
    """
    part, messages = "other", 0
    for line in lines:
        ruler = _RULER.match(line)
        if ruler is not None:
            part = _part(ruler[1][0], ruler[2], part)
        elif part == "header" and (not line or re.match(r"^\S+\.py", line)):
            part = "progress"
        if ruler is not None and part == "messages" and ruler[1][0] == "_":
            messages += 1
        yield ("message" if part == "messages" and messages == 1 else part), line


def _part(ruler: str, title: str, before: str) -> str:
    """Return the part that a ruled line begins."""
    if ruler == "_" and before in {"failures", "messages", "captured"}:
        return "messages"
    if ruler == "-":
        return "captured"
    known = {
        "test session starts": "header",
        "FAILURES": "failures",
        "ERRORS": "failures",
        "checkpoint contracts": "contracts",
        "short test summary info": "summary",
    }
    return known.get(title, "end" if ruler == "=" else before)


def shown(lines: Sequence[str], wanted: str) -> list[str]:
    """Return the wanted parts of an output, separated by a comma, with a mark where others are left out."""
    names = {name.strip() for name in wanted.split(",")}
    if "messages" in names:
        names.add("message")
    found: list[str] = []
    for part, line in parts(lines):
        if part in names:
            found.append(line)
        elif not found or found[-1] != LEFT_OUT:
            found.append(LEFT_OUT)
    return _without_blank_ends(found)


def _without_blank_ends(lines: list[str]) -> list[str]:
    """Drop blank lines beside the marks and at both ends, and marks beside each other."""
    kept: list[str] = []
    for line in lines:
        if not line.strip() and (not kept or kept[-1] == LEFT_OUT):
            continue
        if line == LEFT_OUT:
            while kept and not kept[-1].strip():
                kept.pop()
            if kept and kept[-1] == LEFT_OUT:
                continue
        kept.append(line)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def portable(text: str) -> str:
    """Return an output without the traces of one machine: its temporary directory."""
    return _TEMP.sub("/tmp/pytest-of-you/pytest-0/", text)  # noqa: S108 - text for a page


def comparable(lines: Iterable[str]) -> list[str]:
    """Return the words of an output that are the same on every machine: how lines break, and figures, may differ."""
    text = " ".join(line.strip("=_- ") if _RULER.match(line) else line for line in lines)
    return _NUMBER.sub("N", _SECONDS.sub("TIME", portable(text))).split()
