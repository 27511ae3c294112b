"""The report file: its schema is the documented one, and a reader finds the whole of it or nothing new."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_ckpt.errors import HarnessError
from pytest_ckpt.records.verdict import Finding, ItemReport, JobResult, Timeline, Verdict
from pytest_ckpt.report import json_report
from report.samples import BROKEN, HOLDS, JOB, TEST, failed_job, item, items, optimizer_finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REFERENCE: Final = Path(__file__).parents[2] / "docs" / "reference" / "report.md"
TEXT: Final = st.text(max_size=8)
STEPS: Final = st.lists(st.integers(0, 50), max_size=4).map(tuple)
FINDINGS: Final = st.builds(
    Finding,
    title=TEXT,
    rows=st.lists(st.lists(TEXT, max_size=3).map(tuple), max_size=3).map(tuple),
    cause=TEXT,
    fix=TEXT,
    step=st.none() | st.integers(0, 50),
    component=TEXT,
    checkpoint=TEXT,
)
VERDICTS: Final = st.builds(
    Verdict,
    contract=TEXT,
    status=st.sampled_from(["held", "violated", "not_applicable", "inconclusive"]),
    sentence=TEXT,
    findings=st.lists(FINDINGS, max_size=2).map(tuple),
    notes=st.lists(TEXT, max_size=2).map(tuple),
)
JOBS: Final = st.builds(
    JobResult,
    test=TEXT,
    timeline=st.none() | st.builds(Timeline, steps=st.integers(0, 50), saved=STEPS, kept=STEPS),
    frameworks=st.lists(TEXT, max_size=2).map(tuple),
    experiments=st.lists(st.tuples(TEXT, st.just("0.25")), max_size=2).map(tuple),
    error=TEXT,
    kept_dirs=st.lists(TEXT, max_size=2).map(tuple),
    seconds=st.floats(0, 1e6),
)
ITEMS: Final = st.builds(
    ItemReport,
    nodeid=TEXT,
    contract=TEXT,
    outcome=st.sampled_from(["passed", "failed", "skipped", "error", "xfailed", "xpassed"]),
    reason=TEXT,
    verdict=st.none() | VERDICTS,
    job=st.none() | JOBS,
)


def document(items: Sequence[ItemReport], missing: Sequence[str] = ()) -> dict[str, Any]:
    """Return the report of a session."""
    return json_report.document(
        items, plugin_version="1.0.0", started="2026-05-04T09:00:00Z", seconds=2.5, missing=missing
    )


def example() -> dict[str, Any]:
    """Return the report that the reference shows."""
    return document([item(TEST, HOLDS["faithful"]), item(TEST, BROKEN)], missing=[f"{TEST}[count]"])


def paths(data: object, above: str = "") -> Iterator[str]:
    """Yield the path of each field, as the reference writes them."""
    if isinstance(data, dict) and above != "outcomes":
        for name, value in data.items():
            path = f"{above}.{name}".lstrip(".")
            yield path
            yield from paths(value, path)
    elif isinstance(data, list) and above not in {"missing", "tests[].contracts[].findings[].rows"}:
        for value in data:
            yield from paths(value, f"{above}[]")


def test_the_reference_describes_every_field_and_no_other() -> None:
    """The tables of docs/reference/report.md name the fields of a report, in their order."""
    described = re.findall(r"^\| `([^`]+)` \|", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert set(paths(example())) == set(described)


def test_the_example_of_the_reference_is_a_real_report() -> None:
    """What docs/reference/report.md shows is what such a session writes."""
    (shown,) = re.findall(r"```json\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), flags=re.DOTALL)

    assert json_report.text(example()) == shown


def test_the_script_of_the_reference_prints_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reader in docs/reference/report.md runs and finds the broken contract."""
    (script,) = re.findall(r"```python\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), flags=re.DOTALL)
    json_report.write(tmp_path / "build" / "ckpt.json", example())
    monkeypatch.chdir(tmp_path)

    exec(compile(script, str(REFERENCE), "exec"), {})  # noqa: S102 - our own documentation

    assert f"{TEST}[resumable]\n    {BROKEN.sentence}\n" == capsys.readouterr().out


@given(st.lists(ITEMS, max_size=4))
def test_a_report_has_every_item_once(items: list[ItemReport]) -> None:
    """Each item is in the report under its test, and the outcomes add up."""
    report = document(items)
    contracts = [contract for test in report["tests"] for contract in test["contracts"]]

    assert sorted(one.nodeid for one in items) == sorted(contract["nodeid"] for contract in contracts)
    assert len(items) == sum(report["outcomes"].values())


@given(st.lists(ITEMS, max_size=2))
def test_a_report_survives_its_file(tmp_path_factory: pytest.TempPathFactory, items: list[ItemReport]) -> None:
    """Whatever texts a session has, half surrogate pairs of odd file names included, a reader gets them back."""
    path = tmp_path_factory.mktemp("report") / "report.json"

    json_report.write(path, document(items))

    assert document(items) == json.loads(path.read_text(encoding="utf-8"))


@given(ITEMS)
def test_an_item_survives_the_way_between_processes(item: ItemReport) -> None:
    """An item's JSON form, which a worker sends, gives back the item."""
    assert item == ItemReport.from_json(json.loads(json.dumps(item.to_json())))


def test_all_findings_are_in_the_report() -> None:
    """A message for people is cut; the report has everything."""
    findings = tuple(optimizer_finding(step) for step in range(4, 40, 4))
    verdict = Verdict(contract="resumable", status="violated", sentence="all resumes differ", findings=findings)

    (test,) = document([item(TEST, verdict)])["tests"]

    assert [one.title for one in findings] == [one["title"] for one in test["contracts"][0]["findings"]]


def test_a_job_that_did_not_run_has_its_error_and_no_timeline() -> None:
    """The sentence of its contracts is the first line of the error, whose traceback is with the job."""
    (test,) = document(failed_job(TEST, "count"))["tests"]

    assert (None, None) == (test["job"]["timeline"], test["contracts"][0]["status"])
    assert "the job failed before its first optimizer step: ValueError: no GPU" == test["contracts"][0]["sentence"]
    assert test["job"]["error"].startswith(f"{test['contracts'][0]['sentence']}\n")


def test_an_item_whose_fixtures_failed_has_no_job() -> None:
    """It is told by its node id which test it belongs to."""
    failed = ItemReport(nodeid="tests/test_x.py::test_y[a-count]", contract="count", outcome="error")

    (test,) = document([failed])["tests"]

    assert ("tests/test_x.py::test_y[a]", None) == (test["test"], test["job"])


def test_folders_above_the_file_are_created(tmp_path: Path) -> None:
    """Nobody has to make the build folder first."""
    path = tmp_path / "build" / "ckpt" / "report.json"

    json_report.write(path, document(items(TEST)))

    assert 1 == json.loads(path.read_text(encoding="utf-8"))["schema"]


def test_nothing_but_the_report_is_left_in_the_folder(tmp_path: Path) -> None:
    """The file is written beside its place and moved there, over the old one."""
    path = tmp_path / "report.json"

    for _ in range(2):
        json_report.write(path, document(items(TEST)))

    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["taken", "file/report.json"])
def test_a_report_that_can_not_be_written_says_so(tmp_path: Path, name: str) -> None:
    """The error names the path, the reason and the option; nothing half-written stays."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(HarnessError, match=rf"can't be written to .*{name}: .+\n.*--ckpt-report"):
        json_report.write(tmp_path / name, document([]))

    assert ["file", "taken"] == sorted(path.name for path in tmp_path.iterdir())


def test_kept_directories_are_told_from_what_they_hold() -> None:
    """A path can be opened without cutting it out of a sentence."""
    (test,) = document([item(TEST, HOLDS["faithful"], job=JOB)])["tests"]

    assert [
        {
            "path": "/tmp/pytest-3/test_sft0/job-evidence",  # noqa: S108
            "content": "the runs' journals and copies of their checkpoints",
        }
    ] == test["job"]["kept_dirs"]
