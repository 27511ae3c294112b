"""Workflow commands: lines of output by which GitHub Actions marks a line of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.report.items import by_test, sentence, word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pytest_ckpt.records.verdict import ItemReport
    from pytest_ckpt.report.items import Row, Word

#: The command for what an item came to, and how its title begins.
_COMMANDS: Final[Mapping[Word, tuple[str, str]]] = {
    "BROKEN": ("error", "checkpoint contract broken"),
    "error": ("error", "checkpoint contract in error"),
    "undecided": ("warning", "checkpoint contract inconclusive"),
}
#: What ends a command or a property, as GitHub wants it written; the sign of an escape comes first.
_IN_MESSAGES: Final[Mapping[str, str]] = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTIES: Final[Mapping[str, str]] = {**_IN_MESSAGES, ":": "%3A", ",": "%2C"}


def commands(items: Sequence[ItemReport], places: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    """Yield a command for each contract that is broken or inconclusive, and one for a job that did not run.

    Args:
        items: what the session's items came to.
        places: file and line (from 1) of items, by their node ids.
    """
    for row in by_test(items):
        errors = [item for item in row.items if word(item) == "error"]
        for item in row.items:
            if word(item) in _COMMANDS and item not in errors[1:]:
                yield _annotation(item, row, places.get(item.nodeid))


def _annotation(item: ItemReport, row: Row, place: tuple[str, int] | None) -> str:
    command, title = _COMMANDS[word(item)]
    where = {} if place is None else {"file": place[0], "line": str(place[1])}
    properties = {**where, "title": f"{title}: {item.contract} of {row.name}"}
    told = ",".join(f"{name}={_escaped(text, _IN_PROPERTIES)}" for name, text in properties.items())
    return f"::{command} {told}::{_escaped(_message(item), _IN_MESSAGES)}"


def _message(item: ItemReport) -> str:
    lines = [sentence(item)]
    for finding in item.verdict.findings[:1] if item.verdict is not None else ():
        lines += [finding.cause, f"fix: {finding.fix}" if finding.fix else ""]
    return "\n".join(filter(None, lines))


def _escaped(text: str, escapes: Mapping[str, str]) -> str:
    return text.translate({ord(character): escape for character, escape in escapes.items()})
