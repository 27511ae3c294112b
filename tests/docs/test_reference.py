"""The reference knows all that exists: derived from the code, so that nothing new stays undocumented."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

import pytest_ckpt
from pytest_ckpt import fixtures, hookspecs
from pytest_ckpt.contracts import builtin
from pytest_ckpt.shell.marks import Registry, signature

from .pages import ROOT

if TYPE_CHECKING:
    from pathlib import Path

REFERENCE = ROOT / "docs" / "reference"
CONTRACTS = ROOT / "docs" / "contracts"


def text(name: str) -> str:
    """Return a page of the reference."""
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def rows(name: str) -> list[str]:
    """Return the rows of the tables of a page."""
    return [line for line in text(name).splitlines() if line.startswith("| `")]


def test_every_marker_is_documented_with_its_signature() -> None:
    """The page on markers shows each signature as `pytest --markers` does."""
    shown = {line.split(":")[0] for line in Registry(builtin()).lines()}
    assert {marker for marker in shown if f"`{marker}`" not in text("markers")} == set()


def test_every_contract_has_a_page_that_the_markers_lead_to() -> None:
    """A contract's page begins with its name and shows its marker's signature."""
    for kind in builtin():
        page = CONTRACTS / f"{kind.name}.md"
        assert f"# {kind.name}" == page.read_text(encoding="utf-8").splitlines()[0]
        assert f"`ckpt_{kind.name}{signature(kind)}`" in page.read_text(encoding="utf-8")
        assert f"../contracts/{kind.name}.md" in text("markers")


def test_every_option_is_documented_with_its_ini_twin_and_its_default(pytestconfig: pytest.Config) -> None:
    """The table of options has a row per flag: flag, ini option, default, meaning."""
    for flag, ini, default in options(pytestconfig):
        (row,) = [row for row in rows("options") if f"`{flag}`" in row]
        assert not ini or f"`{ini}`" in row
        assert default in row


def test_no_option_is_documented_that_does_not_exist(pytestconfig: pytest.Config) -> None:
    """Nothing is promised that pytest would refuse."""
    known = {flag for flag, _, _ in options(pytestconfig)}
    assert known == {row.split("`")[1] for row in rows("options")}


def options(config: pytest.Config) -> list[tuple[str, str, str]]:
    """Return flag, ini option (empty where there is none) and default of each option, from the help that pytest prints."""
    group = config._parser.getgroup("ckpt")  # noqa: SLF001 - the only way to the declared options
    found = []
    for option in group.options:
        (flag,) = option.names()
        ini = flag.removeprefix("--").replace("-", "_")
        help_text = str(option.attrs()["help"])
        ini = ini if f"Ini: {ini}" in help_text else ""
        default = help_text.partition("Default: ")[2].partition(".")[0] or "off"
        found.append((flag, ini, default if "FILE" not in str(option.attrs().get("metavar")) else "none"))
    return found


def test_every_fixture_is_documented() -> None:
    """The page on fixtures has a heading for each."""
    names = [name for name, value in vars(fixtures).items() if type(value).__name__ == "FixtureFunctionDefinition"]
    assert names
    assert [] == [name for name in names if f"## `{name}" not in text("fixtures")]


def test_every_hook_is_documented() -> None:
    """The page on hooks takes each from the code."""
    names = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction)]
    assert names
    assert [] == [name for name in names if f"pytest_ckpt.hookspecs.{name}" not in text("hooks")]


def test_every_public_name_is_documented() -> None:
    """The page on the Python API takes each from the code."""
    names = [name for name in pytest_ckpt.__all__ if not name.startswith("_")]
    assert [] == [name for name in names if f"pytest_ckpt.{name}\n" not in text("api")]


@pytest.mark.parametrize("path", sorted(CONTRACTS.glob("*.md")), ids=lambda path: path.name)
def test_every_page_of_a_contract_has_the_same_parts(path: Path) -> None:
    """A reader finds the same headings on each page."""
    if path.name == "index.md":
        return
    found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    wanted = ["The promise", "What is looked at", "Arguments", "An example", "What it cannot see", "Cost"]
    assert [f"## {title}" for title in wanted] == found
