"""Measures the budgets as ratios within one run, and writes docs/benchmarks.md with --write."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from benchmarks import contracts, idle, rehearsal, tracing
from benchmarks.measure import Budget, table

_PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_TEXT = """\
# Benchmarks

Made by `tox -e bench -- --write`. Every figure is the median of {repeats} measurements, or the fastest where that is said,
taken in turns on one machine, so that the columns of a row can be compared with each other; the seconds themselves say
little about another machine.

{table}

{details}

{machine}
"""


def main() -> None:
    """Measure, print and, if asked to, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind (default: 5)")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    budgets: list[Budget] = []
    details: list[str] = []
    for part in (idle, contracts, rehearsal, tracing):
        found, text = part.measure(arguments.repeats)
        budgets += found
        details.append(text)
    page = _TEXT.format(
        repeats=arguments.repeats,
        table=table(budgets),
        details="\n\n".join(details),
        machine=f"Python {platform.python_version()}, {contracts.versions()}, {idle.cores()} cores, {sys.platform}.",
    )
    sys.stdout.write(page)
    if arguments.write:
        _PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
