"""With pytest-xdist a job is run once across workers, and the controller tells what became of every contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

from plugin.test_markers import usage_error

if TYPE_CHECKING:
    from plugin.conftest import Sessions

pytest.importorskip("xdist")


def test_workers_share_the_runs_of_a_job(sessions: Sessions) -> None:
    """Items of one test land on two workers; one runs the job, the other reads its verdicts from disk."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(1)
        @pytest.mark.ckpt_faithful
        @pytest.mark.ckpt_resumable(xfail="#7")
        @pytest.mark.parametrize("every", [2, 3])
        def test_job(ckpt_job, every, pytestconfig):
            with (pytestconfig.rootpath / "runs.txt").open("a") as file:
                file.write(f"{every} " if ckpt_job.is_baseline else "")
            train(ckpt_job, every=every, save_last=False)

        def test_other():
            pass
        """
    )
    result = sessions("-n2", "--dist=load", "-v", "--ckpt-report=all.json", "--junitxml=all.xml")
    result.assert_outcomes(passed=5, failed=2, xpassed=2)
    assert ["2", "3"] == sorted((sessions.pytester.path / "runs.txt").read_text().split())
    assert {"[gw0]", "[gw1]"} == {line.split()[0] for line in result.outlines if line.startswith("[gw") and "%" in line}
    result.stdout.no_fnmatch_line("*no verdict*")
    result.stdout.fnmatch_lines(
        ["checkpoint contract broken: count", "*= checkpoint contracts =*", "*2 broken, 2 xpass, 4 ok*"]
    )
    assert "held" in json.dumps(json.loads((sessions.pytester.path / "all.json").read_text()))
    assert 8 == (sessions.pytester.path / "all.xml").read_text().count('name="ckpt_contract"')


def test_wrong_markers_and_late_ones(sessions: Sessions) -> None:
    """The controller says what the workers have found: one clean usage error, as without them."""
    sessions.write(
        """
        @pytest.mark.ckpt_count
        def test_job(ckpt_job): pass
        """
    )
    assert snapshot("""\
test_jobs.py::test_job: ckpt_count(): missing a required argument: 'n'. Right: ckpt_count(n, *,
  xfail=None)\
""") == usage_error(sessions("-n2"))


def test_a_worker_that_crashes(sessions: Sessions) -> None:
    """A fixture may end the worker: the contract it was busy with is named, the others come to their verdicts."""
    sessions.write(
        """
        import os

        @pytest.fixture
        def deadly(pytestconfig):
            path = pytestconfig.rootpath / "died"
            if not path.exists():
                path.touch()
                os._exit(1)

        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(2)
        def test_job(ckpt_job, deadly):
            train(ckpt_job)
        """
    )
    result = sessions("-n1")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["1 selected contract came to no verdict: a worker of pytest-xdist crashed in them, first *[[]final_step[]]"]
    )


def test_a_session_that_ends_early(sessions: Sessions) -> None:
    """What workers had still to do is counted; an ordinary test whose name ends alike is not."""
    sessions.write(
        """
        @pytest.mark.ckpt_count(7)
        @pytest.mark.parametrize("last", range(4, 12))
        def test_job(ckpt_job, last):
            train(ckpt_job, last=last)

        @pytest.mark.parametrize("what", ["count"])
        def test_other(what): pass
        """
    )
    result = sessions("-n1", "-x")
    result.stdout.fnmatch_lines(["? selected contracts came to no verdict: the session ended before them, first *"])


def test_switched_off(sessions: Sessions) -> None:
    """-n0 is a session without workers."""
    sessions.write("@pytest.mark.ckpt_final_step\ndef test_job(ckpt_job): train(ckpt_job)")
    sessions("-n0").assert_outcomes(passed=1)
    sessions("-p", "no:xdist").assert_outcomes(passed=1)
