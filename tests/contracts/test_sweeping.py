"""One verdict from those on many combinations: of the smallest that breaks, else of one that is undecided, else of all."""

from __future__ import annotations

import json

import pytest

from pytest_ckpt.contracts.sweeping import Outcome, combined, reported
from pytest_ckpt.records.verdict import Finding, Timeline, Verdict, held, inconclusive, not_applicable, violated

BROKEN = violated("final_step", Finding(title="step 3 is lost", rows=(("saved at", "step 2"),), fix="save once more"))
UNDECIDED = inconclusive("final_step", Finding(title="nothing was saved that could be read"))
HELD = held("final_step", "step 4, the last one, is on disk", "rehearsed")
OTHER = not_applicable("final_step", "nothing was trained")


def outcomes(*verdicts: Verdict) -> list[Outcome]:
    """Return outcomes of combinations that are numbered from 1."""
    return [
        Outcome(combination=f"steps={number}", verdict=verdict, timeline=Timeline(steps=number))
        for number, verdict in enumerate(verdicts, start=1)
    ]


def test_the_first_that_breaks_is_named_with_its_rows_and_steps() -> None:
    """So are those counted that broke and held."""
    found = combined(outcomes(HELD, UNDECIDED, BROKEN, HELD, BROKEN, OTHER), total=7, skipped=1)
    assert "violated" == found.status
    assert "steps=3: step 3 is lost" == found.sentence == found.findings[0].title
    assert (
        ("saved at", "step 2"),
        ("combinations", "2 broke, 1 undecided, 2 held, 1 not applicable, 1 skipped, of 7"),
    ) == found.findings[0].rows
    assert "save once more" == found.findings[0].fix
    assert Timeline(steps=3) == found.timeline


def test_other_findings_of_that_combination_stay() -> None:
    """Only the first is told with the combination, which is that of all."""
    verdict = violated("count", Finding(title="one"), Finding(title="two"))
    found = combined(outcomes(verdict), total=1)
    assert ("steps=1: one", "two") == tuple(finding.title for finding in found.findings)


def test_what_is_undecided_is_told_where_nothing_breaks() -> None:
    """Inconclusive is never passed."""
    found = combined(outcomes(HELD, UNDECIDED, HELD), total=3)
    assert ("inconclusive", "steps=2: nothing was saved that could be read") == (found.status, found.sentence)
    assert (("combinations", "1 undecided, 2 held, of 3"),) == found.findings[0].rows


@pytest.mark.parametrize(
    ("verdicts", "total", "sentence"),
    [
        ((HELD, HELD), 2, "all 2 combinations hold"),
        ((HELD,), 1, "the only combination holds"),
        ((HELD, HELD), 9, "all 2 combinations that were judged hold, of 9"),
        ((HELD, OTHER), 2, "all 1 combinations that were judged hold, of 2; it does not apply to 1 more"),
    ],
)
def test_all_that_hold_are_counted(verdicts: tuple[Verdict, ...], total: int, sentence: str) -> None:
    """It is told of how many there are."""
    found = combined(outcomes(*verdicts), total=total)
    assert ("held", sentence) == (found.status, found.sentence)
    assert found.timeline is None


def test_notes_that_are_true_of_all_stay() -> None:
    """One of a single combination would be taken for one of all."""
    other = held("final_step", "step 5, the last one, is on disk", "rehearsed", "five steps")
    assert ("rehearsed",) == combined(outcomes(HELD, other), total=2).notes


def test_a_contract_that_applies_to_none_does_not_apply() -> None:
    """Nothing held."""
    assert OTHER == combined(outcomes(OTHER, OTHER), total=2)


def test_it_is_said_that_only_some_were_tried() -> None:
    """A sample proves nothing of the others, and says how all are tried."""
    note = "2 of 9 combinations were tried: corners and an even sample; ckpt_sweep(most=9) tries all"
    assert note in combined(outcomes(HELD, HELD), total=9).notes
    broken = combined(outcomes(HELD, BROKEN), total=9, all_smaller=False)
    note = note.replace(" and an even sample", ", an even sample, and smaller ones than what broke")
    assert (note, "a smaller combination that was not tried may break, too") == broken.notes
    assert (("saved at", "step 2"), ("combinations", "1 broke, 1 held, of 2 tried among 9")) == broken.findings[0].rows


def test_nothing_is_reported_where_all_hold() -> None:
    """There is no combination to look at."""
    assert reported(outcomes(HELD, OTHER)) is None


def test_a_verdict_with_its_steps_crosses_processes() -> None:
    """As all records do."""
    found = combined(outcomes(BROKEN), total=1)
    assert found == Verdict.from_json(json.loads(json.dumps(found.to_json())))
