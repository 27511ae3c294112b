"""Any text as Markdown that shows it: node ids, file names and messages have characters that would mean something."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What may begin or end something inside a line; `$` begins a formula on GitHub.
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>&|~$]")
#: What makes the line that it begins a heading, a list, a rule or the underline of a heading.
_BEGINS_A_BLOCK: Final = re.compile(r"^(\d*)([#+\-=.)])")
_BACKTICKS: Final = re.compile(r"`+")


def plain(text: str) -> str:
    r"""Return `text` as one line of Markdown that means nothing but itself.

    >>> print(plain("a|b is <nan>"))
    a\|b is \<nan\>
    """
    escaped = _SPECIAL.sub(r"\\\g<0>", _one_line(text))
    return _BEGINS_A_BLOCK.sub(r"\1\\\2", escaped)


def code(text: str) -> str:
    """Return `text` as a span of code, outside of tables.

    >>> print(code("a `b`"))
    `` a `b` ``
    """
    line = _one_line(text)
    if not line:
        return ""
    fence = "`" * _shortest_unused(line)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def cell(text: str) -> str:
    r"""Return `text` as a span of code in a cell of a table, which takes one backslash before a pipe away again.

    >>> print(cell("test_sft[a|b]"))
    `test_sft[a\|b]`
    """
    # Renderers disagree about the pipe behind a backslash in code.
    return plain(text) if "\\|" in text else code(text).replace("|", "\\|")


def block(lines: Iterable[str]) -> str:
    """Return `lines` as a block of text that is shown as it is."""
    content = "\n".join(lines)
    fence = "`" * max(3, max(map(len, _BACKTICKS.findall(content)), default=0) + 1)
    return f"{fence}text\n{content}\n{fence}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _shortest_unused(text: str) -> int:
    """Return the smallest number of backticks that do not stand together in `text`."""
    used = {len(run) for run in _BACKTICKS.findall(text)}
    return next(number for number in range(1, len(used) + 2) if number not in used)
