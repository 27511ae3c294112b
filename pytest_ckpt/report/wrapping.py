"""Text that keeps to a width: wrapped, or cut where a reader misses least."""

from __future__ import annotations

from textwrap import TextWrapper
from typing import Final

#: What contracts put behind the row of a table that matters; it stays on one line.
_MARK: Final = "   <- "
#: Wrapping breaks lines at ASCII white space only, so this keeps words together.
_TIE: Final = "\N{NO-BREAK SPACE}"
#: However narrow the terminal: fewer columns than this would make a ladder of single words.
_NARROWEST: Final = 16


def wrap(text: str, width: int, *, first: str = "", rest: str = "", at_most: int | None = None) -> list[str]:
    """Return `text` as lines of at most `width` columns, the first one behind `first` and the others behind `rest`.

    Words are never broken, so that a path can be copied from the output: one that is too long stands on its own line.
    What does not fit into `at_most` lines is cut.
    """
    body, mark, behind = text.partition(_MARK)
    wrapper = TextWrapper(
        width=max(width, len(rest) + _NARROWEST),
        initial_indent=first,
        subsequent_indent=rest,
        max_lines=at_most,
        placeholder=" ...",
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = wrapper.wrap(body + mark[:3] + _tied(mark[3:] + behind) if mark else body)
    return [line.replace(_TIE, " ") for line in lines] or [first.rstrip()]


def _tied(text: str) -> str:
    return text.replace(" ", _TIE)


def cut_middle(text: str, width: int) -> str:
    """Return `text` in at most `width` columns; of a node id, the folder is missed less than the test's name."""
    if len(text) <= width:
        return text
    left = max(width - 2, 0) // 3
    right = max(width - 2, 0) - left
    return f"{text[:left]}..{text[len(text) - right :]}"
