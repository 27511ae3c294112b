"""The message of a contract that is broken or could not be decided: all that a reader needs, in one piece."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from pytest_ckpt.report import timeline
from pytest_ckpt.report.evidence import directory_and_content
from pytest_ckpt.report.wrapping import table, wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.records.verdict import Finding, JobResult, Timeline, Verdict

_WIDTH: Final = 80
#: Kinds of findings that are told with cause and fix; the others by their title.
_KINDS: Final = 3
#: Rows up to which the table of a finding is shown that is not the first one.
_FEW: Final = 3
#: Findings that are told by their title; the others are counted.
_TITLES: Final = 4
#: What a shell reads within double quotes.
_SPECIAL: Final = frozenset('"$`\\!')
_HEADINGS: Final = {"violated": "broken", "inconclusive": "inconclusive"}
_INDENT: Final = "  "
#: Labels of the last lines stand in one column.
_LABEL: Final = 9


def explain(verdict: Verdict, result: JobResult, nodeid: str) -> str:
    """Return what the exception of a broken or undecided contract says.

    Args:
        verdict: of that contract.
        result: of the job that was judged.
        nodeid: of the item, to repeat it; empty where there is none.
    """
    return "\n".join(_lines(verdict, result, nodeid))


def _lines(verdict: Verdict, result: JobResult, nodeid: str) -> Iterator[str]:
    yield f"checkpoint contract {_HEADINGS[verdict.status]}: {verdict.contract}"
    why = "could not be decided: " if verdict.status == "inconclusive" else ""
    if not verdict.findings or verdict.sentence != verdict.findings[0].title:
        yield from _paragraph(why + verdict.sentence)
        why = ""
    yield from _findings(verdict.findings, why)
    for note in verdict.notes:
        yield from _paragraph(f"note: {note}")
    steps = verdict.timeline or result.timeline
    if steps is not None:
        yield from _labelled("saves", _drawn(steps))
    for kept in result.kept_dirs:
        yield from _labelled("kept", filter(None, directory_and_content(kept)))
    if nodeid:
        yield f"{_label('repeat')}{repeat(nodeid)}"
        yield from (f"{_label('replay')}{repeat(nodeid, state)}" for state in first_state(verdict))


def repeat(nodeid: str, state: int | None = None) -> str:
    """Return the command that checks one contract again, in all crash states or in one."""
    alone = "" if state is None else f"--ckpt-crash {state} "
    return f"pytest --ckpt-contract {alone}{_quoted(nodeid)}"


def first_state(verdict: Verdict) -> tuple[int, ...]:
    """Return the number of a crash state in which the job failed, if there is one."""
    return next((finding.states[:1] for finding in verdict.findings if finding.states), ())


def _findings(findings: Sequence[Finding], why: str) -> Iterator[str]:
    """Tell the first finding in full, the first ones of other kinds without a long table, and name the rest."""
    told = told_in_full(findings)
    for number, finding in enumerate(told):
        if number > 0:
            yield ""
        yield from _finding(finding, why, with_table=number == 0 or _is_short_and_new(finding, told[:number]))
    yield from _labelled("also", _titles([finding.title for finding in findings if finding not in told]))


def _is_short_and_new(finding: Finding, before: Sequence[Finding]) -> bool:
    """Say whether a finding has a table that is worth its lines, such as the one phase of many that it is about."""
    return len(finding.rows) <= _FEW and all(finding.rows != other.rows for other in before)


def told_in_full(findings: Sequence[Finding]) -> list[Finding]:
    """Return the first findings of each kind, which a report tells with their cause and fix."""
    kinds: dict[tuple[str, ...], Finding] = {}
    for finding in findings:
        kinds.setdefault(_kind(finding), finding)
    return list(kinds.values())[:_KINDS]


def _titles(titles: Sequence[str]) -> Iterator[str]:
    for title in titles[:_TITLES]:
        yield from wrap(title, _WIDTH - len(_label("")), rest=_INDENT, at_most=2)
    if len(titles) > _TITLES:
        yield f"and {len(titles) - _TITLES} more"


def _kind(finding: Finding) -> tuple[str, ...]:
    """Return what findings of one kind have in common: they differ in numbers and in the checkpoint's name only."""
    texts = (finding.cause, finding.fix)
    if finding.checkpoint:
        texts = (finding.cause.replace(finding.checkpoint, ""), finding.fix.replace(finding.checkpoint, ""))
    return (finding.component, *(re.sub(r"\d+", "", text) for text in texts))


def _finding(finding: Finding, why: str, *, with_table: bool) -> Iterator[str]:
    yield from _paragraph(why + finding.title)
    if with_table:
        yield from table(finding.rows, _WIDTH, _INDENT * 2)
    if finding.cause:
        yield from _paragraph(finding.cause)
    if finding.fix:
        yield from wrap(finding.fix, _WIDTH, first=f"{_INDENT}fix: ", rest=f"{_INDENT}     ")


def _paragraph(text: str) -> list[str]:
    return wrap(text, _WIDTH, first=_INDENT, rest=_INDENT)


def _drawn(steps: Timeline) -> Iterator[str]:
    width = _WIDTH - len(_label(""))
    yield timeline.draw(steps, width)
    yield from filter(None, wrap(timeline.legend(steps), width))


def _labelled(label: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield _label(label) + line
        label = ""


def _label(label: str) -> str:
    return f"{_INDENT}{label:{_LABEL}}"


def _quoted(nodeid: str) -> str:
    """Quote for a shell, as people do where that is enough."""
    return shlex.quote(nodeid) if _SPECIAL & set(nodeid) else f'"{nodeid}"'
