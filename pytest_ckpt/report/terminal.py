"""The section at the end of a session: a row per test, a cell per contract, and what was saved of the job's steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_ckpt.report import timeline
from pytest_ckpt.report.items import by_test, count, has_failed, sentence, word
from pytest_ckpt.report.wrapping import columns, cut_middle, padded, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_ckpt.records.verdict import ItemReport, Timeline
    from pytest_ckpt.report.items import Row

#: A line, and how pytest's terminal shows it.
Line: TypeAlias = tuple[str, dict[str, bool]]

#: So many tests that hold are shown one by one, more of them by their files.
_ONE_BY_ONE: Final = 8
#: So many of these files are named.
_FILES: Final = 12
#: A test's name in fewer columns can't be told from others.
_NAME: Final = 24
#: Fewer columns don't show the steps.
_STEPS: Final = 40
_GAP: Final = "  "
#: Colours of rows, the most urgent first.
_URGENCY: Final = ("red", "yellow", "green")


def section(items: Sequence[ItemReport], width: int) -> Iterable[Line]:
    """Yield the lines of the section, each with the markup of pytest's terminal writer; none is wider than `width`."""
    rows = sorted(by_test(items), key=lambda row: _URGENCY.index(_colour(row)))
    for line, markup in _lines(rows, width):
        yield cut_middle(line.rstrip(), width), markup
    colour = _colour(rows[0]) if rows else "yellow"
    for line in wrap(quiet(items), width, rest=_GAP):
        yield line, {colour: True, "bold": True}


def quiet(items: Sequence[ItemReport]) -> str:
    """Return one line on all items."""
    rows = by_test(items)
    if not rows:
        return "checkpoint contracts: no verdict"
    seconds = sum(row.job.seconds for row in rows if row.job is not None)
    return f"checkpoint contracts: {_counts(items)} in {_tests(len(rows))}, {seconds:.1f} s"


def _lines(rows: Sequence[Row], width: int) -> Iterator[Line]:
    good = [row for row in rows if _colour(row) == "green"]
    shown = rows if len(good) <= _ONE_BY_ONE else [row for row in rows if row not in good]
    if shown:
        yield from _table(shown, width)
    if len(shown) < len(rows):
        yield from _by_file(good)
    drawn = [steps for row in shown if (steps := _steps(row)) is not None]
    if key := timeline.key(drawn):
        yield key, {}


def _colour(row: Row) -> str:
    if any(map(has_failed, row.items)):
        return "red"
    doubtful = "ok" not in row.words or not row.words.isdisjoint({"undecided", "XPASS"})
    return "yellow" if doubtful else "green"


def _steps(row: Row) -> Timeline | None:
    return row.job.timeline if row.job is not None else None


# -- tests one by one ------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Row], width: int) -> Iterator[Line]:
    grid = _Grid.of(rows, width)
    yield from ((line, {"bold": True}) for line in grid.header())
    for row in rows:
        markup = {_colour(row): True}
        yield from ((line, markup) for line in grid.row(row))
        yield from ((line, markup) for line in _reasons(row, width))
        steps = _steps(row)
        if steps is not None:
            yield from ((_GAP + line, {}) for line in _drawn(steps, width - len(_GAP)))


@dataclass(frozen=True, slots=True)
class _Grid:
    """The columns of the table; where they do not fit beside the tests' names, each cell names its contract.

    Attributes:
        contracts: how wide the column of each contract is.
        name: how wide the tests' names are; 0 where they stand alone.
        width: of the terminal.
    """

    contracts: Mapping[str, int]
    name: int
    width: int

    @classmethod
    def of(cls, rows: Sequence[Row], width: int) -> _Grid:
        sizes: dict[str, int] = {}
        for item in (item for row in rows for item in row.items):
            sizes[item.contract] = max(sizes.get(item.contract, 0), columns(item.contract), len(word(item)))
        left = width - sum(size + len(_GAP) for size in sizes.values())
        longest = max(columns(row.test) for row in rows)
        return cls(sizes, min(left, longest) if left >= min(longest, _NAME) else 0, width)

    def header(self) -> Iterator[str]:
        """Yield the contracts' names, where cells do not bear them."""
        if self.name:
            yield self._line("", {contract: contract for contract in self.contracts})

    def row(self, row: Row) -> Iterator[str]:
        """Yield the lines of a test."""
        cells = {item.contract: word(item) for item in row.items}
        if self.name:
            yield self._line(row.test, cells)
        else:
            yield cut_middle(row.test, self.width)
            pairs = [f"{contract}\N{NO-BREAK SPACE}{result}" for contract, result in cells.items()]
            for line in wrap(_GAP.join(pairs), self.width, first=_GAP, rest=_GAP):
                yield line.replace("\N{NO-BREAK SPACE}", " ")

    def _line(self, name: str, cells: Mapping[str, str]) -> str:
        texts = (padded(cells.get(contract, "-" if name else ""), size) for contract, size in self.contracts.items())
        return _GAP.join((padded(cut_middle(name, self.name), self.name), *texts))


def _reasons(row: Row, width: int) -> Iterator[str]:
    """Yield why a test is not simply in order, each reason once."""
    reasons: dict[str, list[str]] = {}
    for item in row.items:
        if (has_failed(item) or word(item) == "undecided") and sentence(item):
            reasons.setdefault(sentence(item), []).append(item.contract)
    for reason, contracts in reasons.items():
        text = reason if len(contracts) == len(row.items) > 1 else f"{', '.join(contracts)}: {reason}"
        yield from wrap(text, width, first=_GAP, rest=_GAP * 2, at_most=2)


def _drawn(steps: Timeline, width: int) -> Iterator[str]:
    """Yield the line of the steps, with what a resume loses beside or below it."""
    lost = timeline.lost_steps(steps)
    note = f"lost: {lost}" if lost else ""
    beside = width - len(note) - 2 * len(_GAP)
    line = timeline.draw(steps, max(beside, _STEPS) if beside >= _STEPS else width)
    if columns(line) <= beside:
        yield f"{line}{_GAP * 2}{note}"
    else:
        yield line
        yield note


# -- many tests that hold --------------------------------------------------------------------------------------------


def _by_file(rows: Sequence[Row]) -> Iterator[Line]:
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(row.test.partition("::")[0], []).append(row)
    for file, own in list(files.items())[:_FILES]:
        items = [item for row in own for item in row.items]
        yield f"{file}{_GAP}{_tests(len(own))}: {_counts(items)}", {"green": True}
    if len(files) > _FILES:
        yield f"and {len(files) - _FILES} more files", {"green": True}


def _counts(items: Sequence[ItemReport]) -> str:
    return ", ".join(f"{number} {each.lower()}" for each, number in count(items).items())


def _tests(number: int) -> str:
    return "1 test" if number == 1 else f"{number} tests"
