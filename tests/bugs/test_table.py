"""The page of known bugs says what the tests show, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bugs import known, table


def test_every_declared_bug_is_shown_and_every_shown_one_declared() -> None:
    """A declaration without a test proves nothing, and a test without one shows nothing."""
    assert {bug.id for bug in known.BUGS} == {test.bug for test in table.shown()}


@pytest.mark.parametrize("bug", known.BUGS, ids=lambda bug: "-".join([bug.id, bug.contract, *bug.affected.values()]))
def test_a_declaration_says_what_is_found(bug: known.Bug) -> None:
    """Each declaration has a source and a sentence, and a contract's finding names a component."""
    assert bug.source.startswith("https://")
    assert bug.sentence
    assert bug.component or bug.contract == "ckpt_run"


def test_what_is_not_installed_has_no_bugs() -> None:
    """A bug of a framework that few environments have does not stop those who go through all bugs."""
    assert not replace(known.BUGS[0], affected={"no-such-framework": ""}).is_here


def test_the_page_is_current() -> None:
    """docs/bugs.md is what `python -m tests.bugs.table` writes."""
    assert table.page() == table.PAGE.read_text(encoding="utf-8")
