"""Items are chosen, repeated, reordered and reported as those of any other test."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import pytest
from inline_snapshot import snapshot

from plugin.conftest import QUIET

if TYPE_CHECKING:
    from plugin.conftest import Sessions

TWO: Final = """
    @pytest.mark.ckpt_final_step
    @pytest.mark.ckpt_count(2)
    @pytest.mark.parametrize("every", [2, 3])
    def test_job(ckpt_job, every, pytestconfig):
        with (pytestconfig.rootpath / "runs.txt").open("a") as file:
            file.write(f"{every} ")
        train(ckpt_job, every=every, save_last=False)

    def test_other():
        pass
"""


def runs(sessions: Sessions) -> str:
    """Return which jobs were run, and forget them."""
    path = sessions.pytester.path / "runs.txt"
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


@pytest.mark.parametrize(
    ("arguments", "chosen", "ran"),
    [
        (["-k", "count"], ["test_job[2-count]", "test_job[3-count]"], "2 3 "),
        (["-k", "final_step and 3"], ["test_job[3-final_step]"], "3 "),
        (["test_jobs.py::test_job[2-count]"], ["test_job[2-count]"], "2 "),
        (["test_jobs.py::test_other"], ["test_other"], ""),
        (["-m", "ckpt_count", "-k", "2"], ["test_job[2-count]"], "2 "),
        (["-m", "not ckpt_count"], ["test_job[2-final_step]", "test_job[3-final_step]", "test_other"], "2 3 "),
        (["--deselect", "test_jobs.py::test_job"], ["test_other"], ""),
    ],
    ids=" ".join,
)
def test_choosing_items(sessions: Sessions, arguments: list[str], chosen: list[str], ran: str) -> None:
    """A job is run once for those of its contracts that are chosen, or not at all."""
    sessions.write(TWO)
    assert chosen == list(sessions.outcomes(*arguments))
    assert ran == runs(sessions)


def test_the_last_failures(sessions: Sessions) -> None:
    """--lf runs the job for the broken contract alone, --ff for all with that one first."""
    sessions.write(TWO.replace("ckpt_count(2)", "ckpt_count(1)"))
    failed = {"test_job[2-count]", "test_job[3-final_step]"}
    assert failed == {name for name, outcome in sessions.outcomes().items() if outcome == "failed"}
    runs(sessions)
    assert failed == set(sessions.outcomes("--lf"))
    assert "2 3 " == runs(sessions)
    assert failed == set(list(sessions.outcomes("--ff"))[:2])
    assert "2 3 " == runs(sessions)


def test_stopping_at_the_first_failure(sessions: Sessions) -> None:
    """The session says which contracts came to no verdict."""
    sessions.write(TWO.replace("ckpt_count(2)", "ckpt_count(7)"))
    result = sessions("-x")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["2 selected contracts came to no verdict: the session ended before them, first test_jobs.py::*3-count*"]
    )
    sessions("--maxfail=9").stdout.no_fnmatch_line("*no verdict*")


def test_collecting_only(sessions: Sessions) -> None:
    """--co lists the items; nothing is run, and there is nothing to be missed."""
    sessions.write(TWO)
    result = sessions("--co", "-q")
    assert [
        "test_jobs.py::test_job[2-final_step]",
        "test_jobs.py::test_job[2-count]",
        "test_jobs.py::test_job[3-final_step]",
        "test_jobs.py::test_job[3-count]",
        "test_jobs.py::test_other",
    ] == result.outlines[:5]
    result.stdout.no_fnmatch_line("*verdict*")
    assert not runs(sessions)


@pytest.mark.parametrize("mode", ["prepend", "append", "importlib"])
def test_import_modes(sessions: Sessions, mode: str) -> None:
    """However pytest imports test modules, a forked job has them."""
    sessions.write(TWO)
    sessions(f"--import-mode={mode}", "-k", "2 or other").assert_outcomes(passed=3, deselected=2)


@pytest.mark.parametrize("mode", ["prepend", "importlib"])
def test_a_spawned_job_finds_its_module(sessions: Sessions, mode: str) -> None:
    """A fresh interpreter gets what it can't import by itself."""
    sessions.write(
        """
        NUMBER = 2

        @pytest.mark.ckpt_count(2)
        def test_job(ckpt_job):
            train(ckpt_job, every=NUMBER)
        """
    )
    sessions(f"--import-mode={mode}", "--ckpt-start-method=spawn").assert_outcomes(passed=1)


def test_a_fixture_that_can_not_be_sent_to_a_fresh_process(sessions: Sessions) -> None:
    """It is named."""
    sessions.write(TWO)
    result = sessions("-k", "2-count", "--ckpt-start-method=spawn")
    result.assert_outcomes(errors=1, deselected=4)
    (message,) = (line for line in result.outlines if line.startswith("the job could not be run"))
    assert snapshot("""\
the job could not be run: The job run_job can't be sent to a fresh process, because its argument
'pytestconfig' (a Config) can't be pickled (TypeError: cannot pickle 'EncodedFile' object). Create
it inside the job, or run the job in a forked process.\
""") == "\n".join(wrap(message, 100))


def test_marks_of_a_class_choose_contracts_too(sessions: Sessions) -> None:
    """-m and -k see the mark of an item's own contract only, wherever it was put."""
    sessions.write(
        """
        pytestmark = pytest.mark.ckpt_contract

        @pytest.mark.ckpt_count(2)
        class TestJobs:
            def test_job(self, ckpt_job):
                train(ckpt_job)
        """
    )
    assert ["test_job[count]"] == list(sessions.outcomes("-m", "ckpt_count"))
    assert ["test_job[resumable]"] == list(sessions.outcomes("-k", "resumable"))
    assert 8 == len(sessions.outcomes("-m", "ckpt_contract"))


def test_without_a_cache(sessions: Sessions) -> None:
    """Nothing is kept between sessions by us."""
    sessions.write(TWO)
    sessions("-p", "no:cacheprovider", "-k", "2-count").assert_outcomes(passed=1, deselected=4)
    assert not (sessions.pytester.path / ".pytest_cache").exists()


def test_items_in_any_order(sessions: Sessions) -> None:
    """pytest-randomly shuffles items of several jobs among each other; each job is run once all the same."""
    pytest.importorskip("pytest_randomly")
    sessions.write(TWO)
    result = sessions.pytester.runpytest_inprocess(*QUIET[2:], "--ckpt-contract", "-p", "randomly", "-p", "randomly")
    result.assert_outcomes(passed=3, failed=2)
    assert {"2", "3"} == set(runs(sessions).split())


def test_junit_xml(sessions: Sessions) -> None:
    """A test case for each item has the verdict among its properties, and pytest's own outcome."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(1)
        @pytest.mark.ckpt_faithful(xfail="#7")
        def test_job(ckpt_job):
            train(ckpt_job)

        @pytest.mark.ckpt_final_step
        def test_error(ckpt_job):
            raise ValueError("no data")
        """
    )
    sessions("--junitxml=all.xml")
    cases = ET.parse(sessions.pytester.path / "all.xml").getroot().iter("testcase")  # noqa: S314 - pytest wrote it
    assert snapshot(
        [
            {
                "name": "test_job[final_step]",
                "outcome": [],
                "ckpt_contract": "final_step",
                "ckpt_status": "held",
                "ckpt_sentence": "step 4, the last one, is on disk in step_4.pt",
                "ckpt_steps": "4",
                "ckpt_steps_saved": "2 4",
                "ckpt_steps_on_disk": "2 4",
            },
            {
                "name": "test_job[count]",
                "outcome": ["failure"],
                "ckpt_contract": "count",
                "ckpt_status": "violated",
                "ckpt_sentence": "2 checkpoints on disk, expected 1",
                "ckpt_steps": "4",
                "ckpt_steps_saved": "2 4",
                "ckpt_steps_on_disk": "2 4",
            },
            {
                "name": "test_job[faithful]",
                "outcome": [],
                "ckpt_contract": "faithful",
                "ckpt_status": "held",
                "ckpt_sentence": "2 saves of steps 2, 4: each holds the state of its step",
                "ckpt_steps": "4",
                "ckpt_steps_saved": "2 4",
                "ckpt_steps_on_disk": "2 4",
            },
            {
                "name": "test_error[final_step]",
                "outcome": ["error"],
                "ckpt_contract": "final_step",
                "ckpt_status": "error",
                "ckpt_sentence": "the job failed before its first optimizer step: ValueError: no data",
            },
        ]
    ) == [
        {
            "name": case.get("name"),
            "outcome": [child.tag for child in case if child.tag != "properties"],
            **{entry.get("name", ""): entry.get("value") for entry in case.iter("property")},
        }
        for case in cases
    ]
