"""Every block of code that a page means to run does what the page says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest

import pytest_ckpt

from .pages import ROOT, pages, read
from .running import Reader, Warm

if TYPE_CHECKING:
    from pathlib import Path

#: Reasons to leave a block out are for what needs a network, a whole machine or another program: not for convenience.
AT_MOST_NOT_RUN = 0.25
#: Columns of code that a page shows beside its menu.
WIDTH = 88


def names_with_blocks() -> list[str]:
    """Return the pages that have something to run."""
    return [read(path).name for path in pages() if any(block.is_run for block in read(path).blocks)]


@pytest.mark.parametrize("name", names_with_blocks())
def test_the_page_shows_what_happens(name: str, tmp_path: Path, warm: Warm) -> None:
    """A reader who follows the page sees what it shows; `python -m tests.docs --write` refreshes it."""
    outdated = [example for example in Reader(read(ROOT / name), tmp_path, warm).follow() if not example.agrees]
    for example in outdated:
        assert "\n".join(example.expected) == "\n".join(example.found), f"{name}:{example.block.line}"
    assert [] == outdated


def test_code_fits_the_page() -> None:
    """No line of code has to be scrolled for."""
    blocks = [block for path in pages() for block in read(path).blocks if block.language in {"python", "diff", "toml"}]
    assert [] == [line for block in blocks for line in block.lines if len(line) > WIDTH]


def test_few_blocks_are_not_run() -> None:
    """Most of what looks like code is run."""
    blocks = [block for path in pages() for block in read(path).blocks if block.language in {"python", "console"}]
    left_out = [block for block in blocks if not block.is_run]
    assert len(left_out) <= AT_MOST_NOT_RUN * len(blocks)


def modules() -> list[str]:
    """Return all modules of the package."""
    return sorted(module.name for module in pkgutil.walk_packages(pytest_ckpt.__path__, "pytest_ckpt."))


def test_examples_in_docstrings() -> None:
    """What a docstring shows after `>>>` is what Python answers."""
    failed = {name: doctest.testmod(importlib.import_module(name)).failed for name in modules()}
    assert {} == {name: count for name, count in failed.items() if count}
