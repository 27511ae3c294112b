"""The report file that a session writes, as JSON or as Markdown, and what GitHub Actions is told besides."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ckpt import __version__
from pytest_ckpt.errors import HarnessError
from pytest_ckpt.report import files, json_report, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_ckpt.records.verdict import ItemReport


def is_markdown(path: Path | None) -> bool:
    """Say whether the report is one for people."""
    return path is not None and path.suffix.lower() == ".md"


def is_annotated(path: Path | None) -> bool:
    """Say whether GitHub Actions is to be told: there, and with a report for people."""
    return is_markdown(path) and os.environ.get("GITHUB_ACTIONS") == "true"


def write(path: Path, items: Sequence[ItemReport], missing: Sequence[str], started: float) -> None:
    """Write the report, and on GitHub Actions append it to the summary of the step.

    Raises:
        HarnessError: one of the two can't be written.
    """
    if not is_markdown(path):
        document = json_report.document(
            items,
            plugin_version=__version__,
            started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            seconds=time.time() - started,
            missing=missing,
        )
        json_report.write(path, document)
        return
    text = markdown.text(items, missing=missing)
    if is_annotated(path) and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        _append(Path(summary), text)
    files.write(path, text)


def _append(path: Path, text: str) -> None:
    try:
        with path.open("ab") as file:
            file.write(files.encoded(text))
    except OSError as error:
        message = (
            f"the checkpoint report can't be appended to {path}: {error.strerror}\n"
            "the variable GITHUB_STEP_SUMMARY names that file; unset it to do without"
        )
        raise HarnessError(message) from error


def place_of(report: pytest.TestReport, root: Path) -> tuple[str, int]:
    """Return file and line of an item, the file as GitHub has it: relative to the checkout."""
    file, line, _ = report.location
    path = root / file
    checkout = os.environ.get("GITHUB_WORKSPACE")
    if checkout and path.is_relative_to(checkout):
        file = path.relative_to(checkout).as_posix()
    return file, (line or 0) + 1
