"""Writes docs/bugs.md from what is declared of bugs and from the tests that show them: `python -m tests.bugs.table`."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.specifiers import SpecifierSet

from .known import BUGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .known import Bug

HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE.parents[1] / "docs" / "bugs.md"
_ABOUT: Final = """\
# Known bugs that the contracts find

Published bugs of training frameworks, each run as a real job by a test of this package. On releases that have the bug
the contract has to find it and to name the step and the component; on the others, and in the same job without the bug,
it has to find nothing. `ckpt_run` stands where no contract states the promise and the test compares by hand.

The tests run with transformers 4.40.2, 4.46.3, 4.57.6 and the newest, with Lightning 2.4.0, 2.5.5 and the newest, and with
mmengine 0.10.7; bounds between these are as published.

| Bug | What goes wrong | Releases | Fixed in | Contract | Names | What it says |
| --- | --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A test that shows a bug.

    Attributes:
        bug: the bug's identity, from the test's name.
        fact: the first line of the test's docstring.
        file: where the test is.
    """

    bug: str
    fact: str
    file: Path


def shown() -> Iterator[Shown]:
    """Yield the tests of this folder in order; they are read and not run, so no framework is needed."""
    for file in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            match = re.match(r"test_([a-z]+)_(\d+)_", getattr(node, "name", ""))
            if match and isinstance(node, ast.FunctionDef):
                fact = (ast.get_docstring(node) or "").splitlines()[0]
                yield Shown(bug=f"{match[1].upper()}-{match[2]}", fact=fact, file=file)


def page() -> str:
    """Return the page; a bug's row takes its fact from the first test that shows it."""
    tests: dict[str, Shown] = {}
    for test in shown():
        tests.setdefault(test.bug, test)
    return _ABOUT + "".join(_row(bug, tests[bug.id]) for bug in BUGS)


def _row(bug: Bug, test: Shown) -> str:
    link = Path("..") / test.file.relative_to(PAGE.parents[1])
    names = [bug.component, f"step {bug.step}" if bug.step else "", f"`{bug.checkpoint}`" if bug.checkpoint else ""]
    cells = (
        f"[{bug.id}]({bug.source})",
        test.fact,
        _releases(bug),
        _fixed(bug),
        f"`{bug.contract}`",
        ", ".join(filter(None, names)) or "-",
        f"{bug.sentence} ([test]({link.as_posix()}))",
    )
    return f"| {' | '.join(cells)} |\n"


def _releases(bug: Bug) -> str:
    return " with ".join(f"{name} {releases or '(all)'}" for name, releases in bug.affected.items())


def _fixed(bug: Bug) -> str:
    """Return the first releases without the bug, by the upper bounds of all that is declared of it."""
    fixed: list[str] = []
    for declared in (other for other in BUGS if (other.id, other.contract) == (bug.id, bug.contract)):
        bounds = [
            f"{name} {limit.version}"
            for name, releases in declared.affected.items()
            for limit in SpecifierSet(releases)
            if limit.operator == "<"
        ]
        if not bounds:
            return "open"
        fixed += bounds
    return " or ".join(fixed)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
