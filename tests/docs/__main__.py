"""Compares what the pages show with what happens, and writes what happens into them with --write."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .pages import Page, pages, read
from .running import Example, Reader, Warm


def main() -> int:
    """Follow all pages, or those named; return how many blocks differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__)
    parser.add_argument("page", nargs="*", type=Path, help="pages to follow (default: all)")
    parser.add_argument("--write", action="store_true", help="refresh the outputs in the pages")
    arguments = parser.parse_args()
    outdated = 0
    warm = Warm()
    for path in [page.resolve() for page in arguments.page] or pages():
        page = read(path)
        with tempfile.TemporaryDirectory() as folder:
            examples = list(Reader(page, Path(folder), warm).follow())
        differing = [example for example in examples if not example.agrees]
        outdated += len(differing)
        sys.stdout.write(f"{page.name}: {len(examples)} blocks of commands, {len(differing)} outdated\n")
        if arguments.write and differing:
            path.write_text(refreshed(page, differing), encoding="utf-8")
    warm.close()
    return 0 if arguments.write else outdated


def refreshed(page: Page, differing: list[Example]) -> str:
    """Return the page's text with the output that was seen."""
    lines = page.path.read_text(encoding="utf-8").splitlines()
    for example in reversed(differing):
        start = example.block.line - 1
        lines[start : start + len(example.expected)] = example.found
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
