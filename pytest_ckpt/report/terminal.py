"""The section at the end of a session: a row per test, a cell per contract, and what was saved of the job's steps."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_ckpt.report import timeline
from pytest_ckpt.report.grid import Grid
from pytest_ckpt.report.items import by_test, count, has_failed, sentence, word
from pytest_ckpt.report.wrapping import columns, cut_middle, flow, padded, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_ckpt.records.verdict import ItemReport, Timeline
    from pytest_ckpt.report.items import Row

#: A line, and how pytest's terminal shows it.
Line: TypeAlias = tuple[str, dict[str, bool]]

#: So many tests with nothing to say about are shown one by one, more of them are counted.
_ONE_BY_ONE: Final = 8
#: So many files with such tests only are named.
_FILES: Final = 12
#: Fewer columns don't show the steps.
_STEPS: Final = 40
#: Words that a reader should look into, though the session does not fail for them.
_DOUBTFUL: Final = frozenset({"undecided", "XPASS"})
_INDENT: Final = "  "
#: Colours of rows, the most urgent first.
_URGENCY: Final = ("red", "yellow", "green")


def section(items: Sequence[ItemReport], width: int) -> Iterable[Line]:
    """Yield the lines of the section, each with the markup of pytest's terminal writer; none is wider than `width`."""
    rows = sorted(by_test(items), key=lambda row: _URGENCY.index(_colour(row)))
    for line, markup in _lines(rows, width):
        yield cut_middle(line, width), markup
    markup = _markup(rows) if rows else {"yellow": True}
    for line in wrap(_total(rows), width, rest=_INDENT):
        yield line, {**markup, "bold": True}


def quiet(items: Sequence[ItemReport]) -> str:
    """Return one line on all items."""
    return f"checkpoint contracts: {_total(by_test(items))}"


def _total(rows: Sequence[Row]) -> str:
    if not rows:
        return "no verdict"
    seconds = sum(row.job.seconds for row in rows if row.job is not None)
    return f"{_counts(rows)} in {_number(len(rows), 'test')}, {seconds:.1f}s"


def _lines(rows: Sequence[Row], width: int) -> Iterator[Line]:
    quiet_rows = [row for row in rows if not _is_noteworthy(row)]
    counted = _by_file(quiet_rows if len(quiet_rows) > _ONE_BY_ONE else [])
    shown = [row for row in rows if _is_noteworthy(row) or not counted]
    files = _by_file(shown)
    grids = {file: Grid.of(file, own, width) for file, own in files.items()}
    alike = len({grid.absent for grid in grids.values()}) == 1
    for file, own in files.items():
        yield from _table(grids[file], own, width)
        yield from _absent([] if alike else [grids[file]])
        yield from _others(counted.pop(file, []))
    yield from _absent(list(grids.values())[:1] if alike else [])
    yield from _without_note(counted)
    key = timeline.key([row.timeline for row in shown if row.timeline is not None])
    yield from ((line, {"light": True}) for line in flow(key, width) if line)


def _by_file(rows: Iterable[Row]) -> dict[str, list[Row]]:
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(row.file, []).append(row)
    return files


def _is_noteworthy(row: Row) -> bool:
    return row.failed or not row.words.isdisjoint(_DOUBTFUL)


def _colour(row: Row) -> str:
    if row.failed:
        return "red"
    return "yellow" if _is_noteworthy(row) or "ok" not in row.words else "green"


# -- tests one by one ------------------------------------------------------------------------------------------------


def _absent(grids: Sequence[Grid]) -> Iterator[Line]:
    yield from ((line, {"light": True}) for grid in grids for line in grid.footing())


def _table(grid: Grid, rows: Sequence[Row], width: int) -> Iterator[Line]:
    yield from ((line, {"bold": True}) for line in grid.heading())
    for row in rows:
        markup = {_colour(row): True}
        yield from ((line, markup) for line in grid.row(row))
        yield from ((line, markup) for line in _reasons(row, width))
        if row.timeline is not None:
            yield from ((_INDENT * 2 + line, {}) for line in _drawn(row.timeline, width - 2 * len(_INDENT)))


def _reasons(row: Row, width: int) -> Iterator[str]:
    """Yield why a test is not simply in order, each reason once."""
    reasons: dict[str, list[str]] = {}
    for item in row.items:
        if (has_failed(item) or word(item) == "undecided") and sentence(item):
            reasons.setdefault(sentence(item), []).append(item.contract)
    for reason, contracts in reasons.items():
        text = reason if len(contracts) == len(row.items) else f"{', '.join(contracts)}: {reason}"
        yield from wrap(text, width, first=_INDENT * 2, rest=_INDENT * 3, at_most=2)


def _drawn(steps: Timeline, width: int) -> Iterator[str]:
    """Yield the line of the steps, with what is lost of them beside it or below."""
    lost = timeline.lost_steps(steps)
    if not lost:
        yield timeline.draw(steps, width)
        return
    note = f"lost: {lost}"
    beside = width - len(note) - 2 * len(_INDENT)
    line = timeline.draw(steps, beside if beside >= _STEPS else width)
    if columns(line) <= beside:
        yield line + _INDENT * 2 + note
    else:
        yield from (line, note)


# -- many tests with nothing to say about ----------------------------------------------------------------------------


def _others(rows: Sequence[Row]) -> Iterator[Line]:
    if rows:
        yield f"{_INDENT}and {_tests(rows, 'more test')}", _markup(rows)


def _without_note(files: Mapping[str, Sequence[Row]]) -> Iterator[Line]:
    named = dict(islice(files.items(), _FILES))
    left = [row for file, rows in files.items() if file not in named for row in rows]
    if left:
        named[f"and {_number(len(files) - _FILES, 'more file')}"] = left
    longest = max(map(columns, named), default=0)
    for name, rows in named.items():
        yield f"{padded(name, longest)}{_INDENT}{_tests(rows)}", _markup(rows)


def _markup(rows: Iterable[Row]) -> dict[str, bool]:
    return {min(map(_colour, rows), key=_URGENCY.index): True}


def _tests(rows: Sequence[Row], what: str = "test") -> str:
    return f"{_number(len(rows), what)}: {_counts(rows)}"


def _counts(rows: Iterable[Row]) -> str:
    counts = count(item for row in rows for item in row.items)
    return ", ".join(
        _number(number, "error") if each == "error" else f"{number} {each.lower()}" for each, number in counts.items()
    )


def _number(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
