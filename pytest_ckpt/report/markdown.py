"""The report for a page: Markdown that GitHub shows as the summary of a job, or in a comment on a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.report import timeline
from pytest_ckpt.report.escaping import block, cell, code, plain
from pytest_ckpt.report.items import by_test, count, sentence, word
from pytest_ckpt.report.text import first_state, repeat, told_in_full
from pytest_ckpt.report.wrapping import table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pytest_ckpt.records.verdict import Finding, ItemReport
    from pytest_ckpt.report.items import Row, Word

#: GitHub shows no summary at all of a step that has written more than a mebibyte; other steps of ours may write, too.
LARGEST: Final = 500_000
#: Columns of a block, and of the steps in a table.
_WIDTH: Final = 100
_STEPS: Final = 48
#: Further findings that are named, and lines of a job's error.
_TITLES: Final = 4
_ERROR: Final = 20
#: Words in the order of their urgency; what a reader should look into has a paragraph of its own.
_TELLING: Final[tuple[Word, ...]] = ("BROKEN", "error", "undecided", "XPASS")
_HEADINGS: Final[Mapping[Word, str]] = {
    "BROKEN": "Broken",
    "error": "Error",
    "undecided": "Inconclusive",
    "XPASS": "Unexpectedly holds",
}
#: How the headline speaks of one and of several.
_VERBS: Final[Mapping[Word, tuple[str, str]]] = {
    "BROKEN": ("is broken", "are broken"),
    "error": ("ended in an error", "ended in an error"),
    "undecided": ("is inconclusive", "are inconclusive"),
    "XPASS": ("holds unexpectedly", "hold unexpectedly"),
    "ok": ("holds", "hold"),
    "xfail": ("is broken as expected", "are broken as expected"),
    "n/a": ("does not apply", "do not apply"),
    "skipped": ("was skipped", "were skipped"),
}


def text(items: Sequence[ItemReport], *, missing: Sequence[str] = (), limit: int = LARGEST) -> str:
    """Return the report as the text of its file.

    Args:
        items: what the session's items came to.
        missing: node ids of items that were selected and came to nothing.
        limit: characters; what is told of single contracts stops there, and says so.
    """
    rows = sorted(by_test(items), key=_urgency)
    parts = [f"## {_headline(items, missing)}", *_overview(rows), *_missing(missing)]
    details = [detail for row in rows for detail in _details(row)]
    size = sum(map(len, parts))
    for number, detail in enumerate(details):
        size += len(detail)
        if size > limit:
            parts.append(f"There are {len(details) - number} more of these, which would be too long for a page.")
            break
        parts.append(detail)
    return "\n\n".join(parts) + "\n"


def _urgency(row: Row) -> int:
    return min(_TELLING.index(each) if each in _TELLING else len(_TELLING) for each in row.words)


def _headline(items: Sequence[ItemReport], missing: Sequence[str]) -> str:
    total = len(items) + len(missing)
    parts = [(number, _VERBS[each][number != 1]) for each, number in count(items).items()]
    parts += [(len(missing), "came to no verdict")] if missing else []
    if not parts:
        return "No checkpoint contract was checked"
    (first, verb), *rest = parts
    if rest:
        return ", ".join([f"{first} of {total} checkpoint contracts {verb}", *(f"{n} {verb}" for n, verb in rest)])
    return f"The checkpoint contract {verb}" if total == 1 else f"All {total} checkpoint contracts {verb}"


def _missing(nodeids: Sequence[str]) -> Iterator[str]:
    if nodeids:
        also = f", and {len(nodeids) - _TITLES} more" if len(nodeids) > _TITLES else ""
        yield f"The session ended before {', '.join(map(code, nodeids[:_TITLES]))}{also}."


# -- the table -------------------------------------------------------------------------------------------------------


def _overview(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield "\n".join(_table(rows))
    seconds = sum(row.job.seconds for row in rows if row.job is not None)
    tests = "1 test" if len(rows) == 1 else f"{len(rows)} tests"
    key = timeline.key([row.timeline for row in rows if row.timeline is not None])
    marks = [f"{code(mark)} {meaning}" for mark, _, meaning in (each.partition(" ") for each in key)]
    yield f"{tests}, {seconds:.1f} s" + "".join(f" · {mark}" for mark in marks)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    files = list(dict.fromkeys(row.file for row in rows))
    contracts = _contracts(rows)
    yield _line([cell(files[0]) if len(files) == 1 else "test", *map(plain, contracts), "steps"])
    yield "|" + "---|" * (len(contracts) + 2)
    for file in files:
        if len(files) > 1:
            yield _line([f"**{plain(file)}**", *[""] * (len(contracts) + 1)])
        yield from (_row(row, contracts) for row in rows if row.file == file)


def _contracts(rows: Iterable[Row]) -> list[str]:
    """Return the columns, in the order of the test that has the most of them."""
    most_first = sorted(rows, key=lambda row: -len(row.items))
    return list(dict.fromkeys(item.contract for row in most_first for item in row.items))


def _row(row: Row, contracts: Sequence[str]) -> str:
    words = {item.contract: word(item) for item in row.items}
    steps = cell(timeline.draw(row.timeline, _STEPS)) if row.timeline is not None else ""
    return _line([cell(row.name), *(_emphasised(words.get(contract)) for contract in contracts), steps])


def _emphasised(each: Word | None) -> str:
    return f"**{each}**" if each in _TELLING else each or ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# -- a contract that is not in order ---------------------------------------------------------------------------------


def _details(row: Row) -> Iterator[str]:
    """Yield what there is to tell of a test; an error is that of the job, which its contracts share."""
    errors = [item for item in row.items if word(item) == "error"]
    yield from ("\n\n".join(_error(item, row)) for item in errors[:1])
    others = [item for item in row.items if word(item) in _TELLING and item not in errors]
    yield from ("\n\n".join(_verdict(item, row)) for item in others)


def _error(item: ItemReport, row: Row) -> Iterator[str]:
    yield f"### {_HEADINGS['error']}: {code(row.test)}"
    yield plain(sentence(item))
    lines = (row.job.error if row.job is not None else "").splitlines()[1:]
    if lines:
        yield block([*lines[:1], "  ..", *lines[-_ERROR:]] if len(lines) > _ERROR else lines)
    yield f"repeat: {code(repeat(item.nodeid))}"


def _verdict(item: ItemReport, row: Row) -> Iterator[str]:
    yield f"### {_HEADINGS[word(item)]}: {code(item.nodeid)}"
    findings = item.verdict.findings if item.verdict is not None else ()
    if not findings or findings[0].title != sentence(item):
        yield plain(sentence(item))
    told = told_in_full(findings)
    for number, finding in enumerate(told):
        yield from _finding(finding, with_rows=number == 0)
    yield from _others([finding.title for finding in findings if finding not in told])
    if word(item) == "XPASS":
        yield f"It was expected to fail ({plain(item.reason or 'no reason given')}): remove `xfail` from its mark."
    yield from (f"note: {plain(note)}" for note in (item.verdict.notes if item.verdict is not None else ()))
    yield from _steps(row)
    yield f"repeat: {code(repeat(item.nodeid))}"
    states = () if item.verdict is None else first_state(item.verdict)
    yield from (f"replay one state: {code(repeat(item.nodeid, state))}" for state in states)


def _finding(finding: Finding, *, with_rows: bool) -> Iterator[str]:
    yield f"**{plain(finding.title)}**"
    if with_rows and finding.rows:
        yield block(table(finding.rows, _WIDTH, ""))
    if finding.cause:
        yield plain(finding.cause)
    if finding.fix:
        yield f"**fix:** {plain(finding.fix)}"


def _others(titles: Sequence[str]) -> Iterator[str]:
    if titles:
        more = [f"and {len(titles) - _TITLES} more"] if len(titles) > _TITLES else []
        yield "also:\n" + "\n".join(f"* {plain(title)}" for title in [*titles[:_TITLES], *more])


def _steps(row: Row) -> Iterator[str]:
    if row.timeline is not None:
        lost = timeline.lost_steps(row.timeline)
        yield f"steps: {code(timeline.draw(row.timeline, _WIDTH))}" + (f", lost: {lost}" if lost else "")
