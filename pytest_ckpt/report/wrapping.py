"""Text that keeps to a width: wrapped, set in columns, or cut where a reader misses least."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, groupby, zip_longest
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Final
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: What contracts put behind the row of a table that matters; it stays on one line.
_MARK: Final = "   <- "
#: Wrapping breaks lines at ASCII white space only, so this keeps words together.
_TIE: Final = "\N{NO-BREAK SPACE}"
#: However narrow the terminal: fewer columns than this would make a ladder of single words.
_NARROWEST: Final = 16
#: A label that is longer than this pushes its own text aside, not that of all other rows.
_WIDEST_LABEL: Final = 20
#: Texts of a row that has a label; a row of more has a column for each.
_LABELLED: Final = 2
#: Between two columns.
_GAP: Final = "  "
#: Lines of one row; what is longer, such as the names of a hundred files, hides the rest.
_ROW: Final = 4


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


def flow(pieces: Iterable[str], width: int, *, first: str = "", rest: str = "") -> list[str]:
    """Return `pieces` as lines of at most `width` columns, each piece on one line, with a gap between them."""
    lines = wrap("  ".join(map(_tied, pieces)), width, first=first, rest=rest)
    return [line.replace(_TIE, " ") for line in lines]


def _tied(text: str) -> str:
    return text.replace(" ", _TIE)


def table(rows: Sequence[Sequence[str]], width: int, indent: str) -> Iterator[str]:
    """Yield the lines of a table: labels in a column of their own, the text beside them wrapped.

    Rows without any label, such as those of a traceback, are text from the indent on. Rows of more than two texts that follow
    each other have a column for each.
    """
    for is_wide, some in groupby(rows, lambda row: len(row) > _LABELLED):
        yield from (_in_columns if is_wide else _labelled)(list(some), width, indent)


def _labelled(rows: Sequence[Sequence[str]], width: int, indent: str) -> Iterator[str]:
    labels = ["   ".join(row[:-1]).rstrip() for row in rows]
    beside = min(max(map(columns, labels), default=0), _WIDEST_LABEL)
    for label, row in zip(labels, rows, strict=True):
        text = row[-1] if row else ""
        first = f"{indent}{padded(label, beside)}   " if beside else indent
        rest = " " * (columns(indent) + beside + 3) if beside else f"{indent}{_leading_space(text)}  "
        yield from wrap(text, width, first=first, rest=rest, at_most=_ROW)


def _in_columns(rows: Sequence[Sequence[str]], width: int, indent: str) -> Iterator[str]:
    """Yield the lines of rows whose texts are wrapped in columns, the widest of which give way."""
    sizes = [max(map(columns, texts)) for texts in zip_longest(*rows, fillvalue="")]
    room = width - columns(indent) - len(_GAP) * (len(sizes) - 1)
    while sum(sizes) > room and max(sizes) > _NARROWEST:
        sizes[sizes.index(max(sizes))] -= 1
    for row in rows:
        cells = [_cell(text, size) for text, size in zip(row, sizes, strict=False)]
        for texts in zip_longest(*cells, fillvalue=""):
            line = (padded(text, size) for text, size in zip(texts, sizes, strict=False))
            yield f"{indent}{_GAP.join(line)}".rstrip()


def _cell(text: str, size: int) -> list[str]:
    """Return the lines of a text in a column; a word that is wider is cut."""
    return wrap(" ".join(cut_middle(word, size) for word in text.split(" ")), size, at_most=_ROW)


def _leading_space(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return sum(map(_columns_of, text))


def _columns_of(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in {"F", "W"} else 1


def padded(text: str, width: int) -> str:
    """Return `text` with spaces behind it, up to `width` columns."""
    return text + " " * (width - columns(text))


def cut_middle(text: str, width: int) -> str:
    """Return `text` in at most `width` columns; of a node id, the folder is missed less than the test's name."""
    if columns(text) <= width:
        return text
    left = max(width - 2, 0) // 3
    right = max(width - 2, 0) - left
    return f"{_start(text, left)}..{_start(text[::-1], right)[::-1]}"


def _start(text: str, width: int) -> str:
    """Return as much of the beginning as fits into `width` columns."""
    return text[: bisect_right(list(accumulate(map(_columns_of, text))), width)]
