"""The page that sets pytest-torch beside us says what is declared of the bugs, and counts right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bugs import table
from bugs.known import BUGS
from comparison.cases import Case, cases
from comparison.page import PAGE, Outcome, page
from pytest_ckpt.report.escaping import plain

if TYPE_CHECKING:
    from pathlib import Path


def case(identity: str, contract: str) -> Case:
    """Return a bug without its job."""
    declared = next(bug for bug in BUGS if (bug.id, bug.contract) == (identity, contract))
    return Case(bug=declared, fact=f"what {identity} does", train=None, prepare=lambda _: None)


def test_each_row_says_what_the_contract_says() -> None:
    """A sentence that changed in tests/bugs/known.py has to change on the page: run `tox -e comparison`."""
    rows = re.findall(r"^\| \[(.+?)\].* \| `(\w+)`: (.+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    declared = {(bug.id, bug.contract, plain(bug.sentence)) for bug in BUGS}
    assert rows
    assert set() == set(rows) - declared


def test_the_page_counts_and_tells() -> None:
    """What a check says stands below the table, and what passes is named."""
    failed = Outcome(failed="assert_x", message="It differs:\n  the lr: 1|2")
    compared = [(case("PT-07", "resumable"), failed), (case("HF-15", "ckpt_run"), Outcome(passed=("a", "b")))]
    text = page(compared, theirs="1.1.1", releases="torch 9.9")
    assert "Of the 2 bugs that torch 9.9 have, pytest-torch's checks find 1. The contracts find 1;" in " ".join(
        text.split()
    )
    assert "| what PT-07 does | **found**: assert_x |" in text
    assert text.endswith("PT-07:\n\n```text\nIt differs:\n  the lr: 1|2\n```\n")
    assert "| what HF-15 does | not found: a, b pass |" in text


def test_a_check_that_does_not_apply_has_its_reason() -> None:
    """So has a bug that no check looks at."""
    outcomes = Outcome(passed=("a",), refused="one optimizer only"), Outcome()
    text = page([(case("PT-07", "resumable"), outcome) for outcome in outcomes], theirs="1.1.1", releases="torch 9.9")
    assert "| not found: a passes; can't be applied: one optimizer only |" in text
    assert "| no check looks at this |" in text


def test_every_bug_of_the_installed_releases_is_compared(tmp_path: Path) -> None:
    """Their jobs are those of the tests, which are not judged here."""
    found = {one.bug.id: one for one in cases(tmp_path)}
    assert "PT-07" in found
    assert {test.bug for test in table.shown()} & {bug.id for bug in BUGS if bug.is_here} == set(found)
    assert all((one.train is None) == (one.bug.contract == "ckpt_run") for one in found.values())
