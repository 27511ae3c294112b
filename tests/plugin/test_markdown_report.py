"""A report whose name ends in .md is a page for people, and GitHub Actions is told of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from inline_snapshot import snapshot
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from plugin.conftest import Sessions

HOWTO: Final = Path(__file__).parents[2] / "docs" / "howto" / "github-actions.md"
TEST: Final = """
@pytest.mark.ckpt_final_step
@pytest.mark.ckpt_count(1)
def test_job(ckpt_job):
    train(ckpt_job, every=3, save_last=False)
"""
REPEAT: Final = 'repeat: `pytest --ckpt-contract "test_jobs.py::test_job[final_step]"`'


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the inner sessions as on a developer's machine, wherever the outer one runs."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Run the inner sessions on GitHub Actions, and return where a step's summary is written."""
    path = tmp_path / "summary.md"
    path.write_text("# What an earlier command wrote\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    return path


def commands(result: pytest.RunResult) -> list[str]:
    """Return the workflow commands that a session printed."""
    return [line for line in result.outlines if line.startswith("::")]


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_the_report_is_written_once(sessions: Sessions, workers: list[str]) -> None:
    """With and without workers it holds every contract, and the terminal says where it is and no more."""
    if workers:
        pytest.importorskip("xdist")
    sessions.write(TEST)
    result = sessions("--ckpt-report", "out/all.md", *workers)
    text = (sessions.pytester.path / "out" / "all.md").read_text(encoding="utf-8")
    result.stdout.fnmatch_lines(["ckpt report: *all.md"])
    assert [] == commands(result)
    assert REPEAT in text
    assert (
        snapshot("""\
## 1 of 2 checkpoint contracts is broken, 1 holds

| `test_jobs.py` | final\\_step | count | steps |
|---|---|---|---|
| `test_job` | **BROKEN** | ok | `1 2 [3] (4)` |
""")
        == text.partition("\n1 test")[0]
    )


@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_github_actions_is_told(sessions: Sessions, summary: Path, workers: list[str]) -> None:
    """The test gets an annotation at its line, and the page is appended to the summary of the step."""
    if workers:
        pytest.importorskip("xdist")
    sessions.write(TEST)
    result = sessions("--ckpt-report=all.md", *workers)
    (command,) = commands(result)
    assert command.startswith("::error file=test_jobs.py,line=5,title=checkpoint contract broken%3A final_step of ")
    assert "::training ended at step 4 and the newest checkpoint is of step 3: step 4 is lost%0A" in command
    page = (sessions.pytester.path / "all.md").read_text(encoding="utf-8")
    assert f"# What an earlier command wrote\n{page}" == summary.read_text(encoding="utf-8")


def test_files_are_named_as_in_the_checkout(sessions: Sessions, summary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project in a folder of its repository is annotated, too."""
    assert summary.exists()
    monkeypatch.setenv("GITHUB_WORKSPACE", str(sessions.pytester.path.parent))
    sessions.write(TEST)
    (command,) = commands(sessions("--ckpt-report=all.md", "-q"))
    assert f"file={sessions.pytester.path.name}/test_jobs.py," in command


def test_a_contract_that_can_not_be_decided_is_a_warning(sessions: Sessions, summary: Path) -> None:
    """It is no finding about the job."""
    sessions.write("@pytest.mark.ckpt_resumable\ndef test_job(ckpt_job): train(ckpt_job, last=1, save_last=False)")
    (command,) = commands(sessions("--ckpt-report=all.md"))
    assert command.startswith("::warning file=test_jobs.py,line=4,")
    assert "### Inconclusive: " in summary.read_text(encoding="utf-8")


def test_a_report_for_machines_tells_github_nothing(sessions: Sessions, summary: Path) -> None:
    """Who asks for JSON has a reader of their own."""
    before = summary.read_text(encoding="utf-8")
    sessions.write(TEST)
    assert [] == commands(sessions("--ckpt-report=all.json"))
    assert before == summary.read_text(encoding="utf-8")


@pytest.mark.parametrize("taken", ["report", "summary"])
def test_what_can_not_be_written_is_said(
    sessions: Sessions, summary: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """The session ends as it would have, with the path, the reason and the setting in its last lines."""
    folder = sessions.pytester.mkdir("taken.md")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(folder if taken == "summary" else summary))
    sessions.write(TEST)
    result = sessions(f"--ckpt-report={'all.md' if taken == 'summary' else folder.name}")
    result.assert_outcomes(passed=1, failed=1)
    setting = {"report": "*--ckpt-report*", "summary": "*GITHUB_STEP_SUMMARY*"}[taken]
    result.stdout.fnmatch_lines(["the checkpoint report can't be * *taken.md: *", setting])
    assert 1 == len(commands(result))


def test_the_page_in_the_documentation_is_a_real_one(sessions: Sessions) -> None:
    """What docs/howto/github-actions.md shows is what its test leads to, but for the seconds."""
    fences = [token for token in MarkdownIt().parse(HOWTO.read_text(encoding="utf-8")) if token.type == "fence"]
    blocks = {token.info: token.content for token in fences}
    (sessions.pytester.path / "test_loop.py").write_text(blocks["python"], encoding="utf-8")
    sessions("--ckpt-report=ckpt.md")
    page = (sessions.pytester.path / "ckpt.md").read_text(encoding="utf-8")
    assert _without_seconds(blocks["markdown"]) == _without_seconds(page)


def _without_seconds(text: str) -> str:
    return re.sub(r"\d+\.\d+ s", "SECONDS", text)
