"""Runs the checks of pytest-torch on the known bugs and writes docs/comparison.md: `python -m tests.comparison`."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comparison.cases import Case
    from comparison.page import Outcome


def main() -> None:
    """Compare, show each bug as it is done, and write the page."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest's pythonpath
    from comparison.cases import cases
    from comparison.page import PAGE, page

    compared = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        for case in cases(scratch):
            compared.append((case, _outcome(case, Path(folder))))
            found = compared[-1][1].failed or "nothing"
            sys.stdout.write(f"{case.bug.id:8}{case.bug.contract:12}found by pytest-torch: {found}\n")
            sys.stdout.flush()
    names = [f"{name} {version(name).partition('+')[0]}" for name in ("transformers", "lightning", "torch")]
    releases = f"{', '.join(names[:-1])} and {names[-1]}"
    PAGE.write_text(page(compared, theirs=version("pytest-torch"), releases=releases), encoding="utf-8")


def _outcome(case: Case, folder: Path) -> Outcome:
    """Apply the checks until one finds something."""
    from comparison.checks import applicable
    from comparison.page import Outcome

    passed: list[str] = []
    for name, check in applicable(case):
        directory = folder / f"{case.bug.id}-{name}"
        directory.mkdir()
        message, refused = _tried(check, case, directory)
        if message or refused:
            return Outcome(passed=tuple(passed), failed=name if message else "", message=message, refused=refused)
        passed += name.split(", ")
    return Outcome(passed=tuple(passed))


def _tried(check: Any, case: Case, directory: Path) -> tuple[str, str]:
    """Return what a check says: that something is broken, or that it can't be applied."""
    try:
        with _quiet():
            check(case, directory)
    except AssertionError as error:
        return str(error), ""
    except TypeError as error:  # so pytest-torch refuses what it does not support
        return "", str(error)
    return "", ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the frameworks print and warn of."""
    logging.disable(logging.WARNING)
    nowhere = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
