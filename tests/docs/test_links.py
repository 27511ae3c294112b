"""Every link within the documentation leads somewhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

from .pages import ROOT, pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from markdown_it.token import Token


def tokens(path: Path) -> Iterator[Token]:
    """Yield the tokens of a page, those inside paragraphs included."""
    for token in MarkdownIt().enable("table").parse(path.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def links(path: Path) -> Iterator[str]:
    """Yield the targets of the links of a page that stay within this repository."""
    for token in tokens(path):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if target and not re.match(r"^[a-z]+:", target):
            yield target


def anchors(path: Path) -> set[str]:
    """Return the names under which the headings of a page can be linked to, as GitHub and MyST make them."""
    found = MarkdownIt().parse(path.read_text(encoding="utf-8"))
    titles = (found[number + 1].content for number, token in enumerate(found) if token.type == "heading_open")
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """A link to a file or to a heading finds it."""
    dead = []
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            dead.append(link)
    assert [] == dead


def test_the_readme_links_to_nothing_on_a_machine() -> None:
    """The README is also the page of the package in an index: it names nothing outside of this repository."""
    assert [] == [link for link in links(ROOT / "README.md") if link.startswith(("/", ".."))]
