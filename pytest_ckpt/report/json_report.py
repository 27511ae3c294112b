"""The report for machines: one JSON file a session, with a schema that docs/reference/report.md describes."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pytest_ckpt.report import files
from pytest_ckpt.report.evidence import directory_and_content
from pytest_ckpt.report.items import by_test, sentence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_ckpt.records.verdict import Finding, ItemReport, JobResult, Timeline
    from pytest_ckpt.report.items import Row

#: Raised when a field is renamed, removed or changes its meaning; new fields do not raise it.
SCHEMA: Final = 1

Data: TypeAlias = dict[str, Any]


def document(
    items: Sequence[ItemReport], *, plugin_version: str, started: str, seconds: float, missing: Sequence[str]
) -> Data:
    """Return the report as JSON data; every field is always there.

    Args:
        items: what the session's items came to.
        plugin_version: of this package.
        started: when the session began, as ISO 8601.
        seconds: how long it took.
        missing: node ids of items that were selected and came to nothing.
    """
    return {
        "schema": SCHEMA,
        "plugin_version": plugin_version,
        "started": started,
        "seconds": round(seconds, 3),
        "outcomes": dict(sorted(Counter(item.outcome for item in items).items())),
        "missing": list(missing),
        "tests": [_test(row) for row in by_test(items)],
    }


def _test(row: Row) -> Data:
    return {"test": row.test, "contracts": [_contract(item) for item in row.items], "job": _job(row.job)}


def _contract(item: ItemReport) -> Data:
    verdict = item.verdict
    return {
        "nodeid": item.nodeid,
        "contract": item.contract,
        "outcome": item.outcome,
        "reason": item.reason,
        "status": None if verdict is None else verdict.status,
        "sentence": sentence(item),
        "findings": [] if verdict is None else [_finding(finding) for finding in verdict.findings],
        "notes": [] if verdict is None else list(verdict.notes),
    }


def _finding(finding: Finding) -> Data:
    return {
        "title": finding.title,
        "rows": [list(row) for row in finding.rows],
        "cause": finding.cause,
        "fix": finding.fix,
        "step": finding.step,
        "component": finding.component,
        "checkpoint": finding.checkpoint,
        "states": list(finding.states),
    }


def _job(job: JobResult | None) -> Data | None:
    if job is None:
        return None
    kept = map(directory_and_content, job.kept_dirs)
    return {
        "error": job.error,
        "skipped": job.skipped,
        "frameworks": list(job.frameworks),
        "timeline": _timeline(job.timeline),
        "experiments": [{"title": title, "seconds": float(seconds)} for title, seconds in job.experiments],
        "kept_dirs": [{"path": directory, "content": content} for directory, content in kept],
        "seconds": round(job.seconds, 3),
    }


def _timeline(timeline: Timeline | None) -> Data | None:
    if timeline is None:
        return None
    return {
        "steps": timeline.steps,
        "saved": list(timeline.saved),
        "kept": list(timeline.kept),
        "lost": timeline.lost,
    }


def text(document: Data) -> str:
    """Return the report as the text of its file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(path: Path, document: Data) -> None:
    """Write the report, so that a reader finds the whole of it or what was there before.

    Raises:
        HarnessError: the file can't be written.
    """
    files.write(path, text(document))
