"""One verdict on a contract from those on many combinations of settings: that of the smallest in which it is broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.verdict import Finding, Timeline, Verdict, held, not_applicable

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOT_ALL_SMALLER: Final = "a smaller combination that was not tried may break, too"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a contract came to with one combination of settings.

    Attributes:
        combination: the settings, such as `save_steps=3, epochs=1`.
        timeline: of the run that the verdict is on.
    """

    combination: str
    verdict: Verdict
    timeline: Timeline | None = None


def reported(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the first outcome that is broken, else the first that is undecided."""
    by_status = {outcome.verdict.status: outcome for outcome in reversed(outcomes)}
    return by_status.get("violated") or by_status.get("inconclusive")


def combined(outcomes: Sequence[Outcome], *, total: int, skipped: int = 0, all_smaller: bool = True) -> Verdict:
    """Return the verdict on all combinations.

    Args:
        outcomes: of one contract, at least one, from the smallest combination to the largest.
        total: how many combinations there are.
        skipped: in how many of those tried the job skipped itself.
        all_smaller: whether all combinations were tried that are smaller than the one reported.
    """
    tried = len(outcomes) + skipped
    first = outcomes[0].verdict
    shown = reported(outcomes)
    breaks = shown is not None and shown.verdict.status == "violated"
    notes = (*(() if tried == total else (_sampled(tried, total, breaks=breaks),)), *_common_notes(outcomes))
    if shown is not None:
        more = (_NOT_ALL_SMALLER,) if breaks and not all_smaller else ()
        return _of(shown, _counted(outcomes, total, skipped), (*notes, *more))
    count = Counter(outcome.verdict.status for outcome in outcomes)
    if not count["held"]:
        return not_applicable(first.contract, first.sentence)
    return held(first.contract, _all_hold(count["held"], count["not_applicable"], total), *notes)


def _of(shown: Outcome, counted: str, notes: tuple[str, ...]) -> Verdict:
    """Return a verdict that names its combination, with how many others there are."""
    verdict = shown.verdict
    first, *others = verdict.findings or (Finding(title=verdict.sentence),)
    rows = (*first.rows, ("combinations", counted))
    return replace(
        verdict,
        sentence=f"{shown.combination}: {verdict.sentence}",
        findings=(replace(first, title=f"{shown.combination}: {first.title}", rows=rows), *others),
        notes=tuple(dict.fromkeys((*verdict.notes, *notes))),
        timeline=shown.timeline,
    )


def _counted(outcomes: Sequence[Outcome], total: int, skipped: int) -> str:
    count = Counter(outcome.verdict.status for outcome in outcomes)
    words = {"broke": count["violated"], "undecided": count["inconclusive"], "held": count["held"]}
    rare = {"not applicable": count["not_applicable"], "skipped": skipped}
    told = ", ".join(f"{number} {word}" for word, number in (words | rare).items() if number)
    tried = len(outcomes) + skipped
    return f"{told}, of {total}" if tried == total else f"{told}, of {tried} tried among {total}"


def _all_hold(number: int, not_applicable_to: int, total: int) -> str:
    elsewhere = f"; it does not apply to {not_applicable_to} more" if not_applicable_to else ""
    if number == total:
        return "the only combination holds" if total == 1 else f"all {total} combinations hold"
    return f"all {number} combinations that were judged hold, of {total}{elsewhere}"


def _sampled(tried: int, total: int, *, breaks: bool) -> str:
    how = "corners, an even sample, and smaller ones than what broke" if breaks else "corners and an even sample"
    return f"{tried} of {total} combinations were tried: {how}; ckpt_sweep(most={total}) tries all"


def _common_notes(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return the notes that are true of all combinations."""
    first, *others = outcomes
    return tuple(note for note in first.verdict.notes if all(note in other.verdict.notes for other in others))
