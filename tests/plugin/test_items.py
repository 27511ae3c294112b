"""A test becomes one item for each of its contracts, and its job is run once for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

if TYPE_CHECKING:
    from plugin.conftest import Sessions

COUNTED = """
    @pytest.fixture
    def counted(pytestconfig):
        with (pytestconfig.rootpath / "fixtures.txt").open("a") as file:
            file.write("set up ")
        yield
        with (pytestconfig.rootpath / "fixtures.txt").open("a") as file:
            file.write("torn down ")

    @pytest.mark.ckpt_final_step
    @pytest.mark.ckpt_count(2)
    @pytest.mark.ckpt_faithful
    def test_job(ckpt_job, counted, pytestconfig):
        with (pytestconfig.rootpath / "runs.txt").open("a") as file:
            file.write("baseline " if ckpt_job.is_baseline else "other ")
        train(ckpt_job)
"""


def test_an_item_for_each_contract(sessions: Sessions) -> None:
    """The contract stands in brackets behind the test's name, in the order in which reports show contracts."""
    sessions.write(
        """
        @pytest.mark.ckpt_faithful
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job):
            train(ckpt_job)
        """
    )
    assert {"test_job[final_step]": "passed", "test_job[faithful]": "passed"} == sessions.outcomes()


def test_the_contract_ends_the_name_of_a_parametrized_test(sessions: Sessions) -> None:
    """Each set of parameters is a job of its own, with a verdict of its own."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.parametrize("every", [2, 3])
        @pytest.mark.parametrize("last", [4], ids=["last=4"])
        def test_job(ckpt_job, every, last):
            train(ckpt_job, every=every, last=last, save_last=False)
        """
    )
    assert {
        "test_job[last=4-2-final_step]": "passed",
        "test_job[last=4-3-final_step]": "failed",
    } == sessions.outcomes()


def test_a_test_parametrized_by_a_hook(sessions: Sessions) -> None:
    """The contract comes last, whoever parametrizes."""
    sessions.pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(trylast=True)
        def pytest_generate_tests(metafunc):
            metafunc.parametrize("last", [2, 4])
        """
    )
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, last):
            train(ckpt_job, last=last)
        """
    )
    assert {"test_job[2-final_step]": "passed", "test_job[4-final_step]": "passed"} == sessions.outcomes()


def test_the_bare_mark_stands_for_the_default_set(sessions: Sessions) -> None:
    """What does not apply to the job is skipped, and says so at the test's own line."""
    sessions.write(
        """
        @pytest.mark.ckpt_contract
        def test_job(ckpt_job):
            train(ckpt_job)
        """
    )
    result = sessions("-v", "-rs")
    result.assert_outcomes(passed=4, skipped=5)
    result.stdout.re_match_lines(
        [r".*test_job\[final_step\] PASSED", r".*test_job\[count\] SKIPPED \(not applicable.*"]
    )
    result.stdout.fnmatch_lines(["SKIPPED [[]1[]] test_jobs.py:5: not applicable: how many checkpoints should remain*"])


def test_a_mark_beside_the_default_set_replaces_its_contract(sessions: Sessions) -> None:
    """An explicit mark has its arguments, wherever the default set is asked for."""
    sessions.write(
        """
        pytestmark = pytest.mark.ckpt_count(2)

        @pytest.mark.ckpt_contract
        def test_job(ckpt_job):
            train(ckpt_job)
        """
    )
    assert [
        f"test_job[{name}]"
        for name in (
            *("final_step", "steps", "count", "retention", "best"),
            *("complete", "loadable", "faithful", "resumable"),
        )
    ] == list(sessions.outcomes())
    sessions().assert_outcomes(passed=5, skipped=4)


def test_marks_of_modules_classes_and_functions_add_up_and_the_nearest_wins(sessions: Sessions) -> None:
    """A class may be asked for more than its module, and a test for other numbers."""
    sessions.write(
        """
        pytestmark = [pytest.mark.ckpt_final_step, pytest.mark.ckpt_count(7)]

        @pytest.mark.ckpt_count(8)
        class TestTraining:
            @pytest.mark.ckpt_count(2)
            def test_near(self, ckpt_job):
                train(ckpt_job)

            def test_far(self, ckpt_job):
                train(ckpt_job)
        """
    )
    result = sessions()
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*2 checkpoints on disk, expected 8"])


def test_the_mark_of_a_set_of_parameters_is_the_nearest(sessions: Sessions) -> None:
    """What is true of one set of parameters need not be true of another."""
    sessions.write(
        """
        @pytest.mark.ckpt_count(2)
        @pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.ckpt_count(4))])
        def test_job(ckpt_job, every):
            train(ckpt_job, every=every)

        @pytest.mark.ckpt_contract
        @pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.ckpt_count(4))])
        def test_default(ckpt_job, every):
            train(ckpt_job, every=every)
        """
    )
    sessions().assert_outcomes(passed=7, skipped=4)


def test_the_job_is_run_once_for_all_contracts(sessions: Sessions) -> None:
    """So are its fixtures set up and torn down once."""
    sessions.write(COUNTED)
    assert {"passed"} == set(sessions.outcomes().values())
    assert "baseline " == (sessions.pytester.path / "runs.txt").read_text()
    assert "set up torn down " == (sessions.pytester.path / "fixtures.txt").read_text()


def test_methods_get_an_instance_and_setup_method_runs(sessions: Sessions) -> None:
    """A job may be a method, whose instance pytest prepares as ever."""
    sessions.write(
        """
        class TestTraining:
            def setup_method(self):
                self.last = 4

            @pytest.mark.ckpt_final_step
            @pytest.mark.ckpt_count(2)
            def test_job(self, ckpt_job):
                train(ckpt_job, last=self.last)
        """
    )
    assert {"test_job[final_step]": "passed", "test_job[count]": "passed"} == sessions.outcomes()


def test_seeds_come_from_the_test_and_are_put_back(sessions: Sessions) -> None:
    """Fixtures of a job draw the same numbers in each session, and leave those of other tests alone."""
    sessions.write(
        """
        import random
        import torch

        @pytest.fixture
        def drawn(pytestconfig):
            with (pytestconfig.rootpath / "drawn.txt").open("a") as file:
                print(random.random(), torch.rand(1).item(), file=file)

        def test_before():
            random.seed(1)
            torch.manual_seed(1)

        @pytest.mark.ckpt_final_step
        def test_job(drawn, ckpt_job):
            train(ckpt_job)

        def test_after():
            assert random.Random(1).random() == random.random()
            expected = torch.rand(1, generator=torch.Generator().manual_seed(1))
            assert expected == torch.rand(1)
        """
    )
    sessions().assert_outcomes(passed=3)
    sessions().assert_outcomes(passed=3)
    first, second = (sessions.pytester.path / "drawn.txt").read_text().splitlines()
    assert first == second


@pytest.mark.parametrize("mark", ["skip(reason='later')", "skipif(True, reason='later')"])
def test_marks_that_skip_do_so_before_anything_is_run(sessions: Sessions, mark: str) -> None:
    """Other marks mean what they always mean."""
    sessions.write(COUNTED.replace("@pytest.mark.ckpt_faithful", f"@pytest.mark.{mark}"))
    assert {"skipped"} == set(sessions.outcomes().values())
    assert not (sessions.pytester.path / "runs.txt").exists()
    assert not (sessions.pytester.path / "fixtures.txt").exists()


# -- expected failures -----------------------------------------------------------------------------------------------

BROKEN = """
    @pytest.mark.ckpt_final_step(xfail="saving the last step is on the list")
    @pytest.mark.ckpt_count(1)
    def test_job(ckpt_job):
        train(ckpt_job, every=3, save_last=False)
"""


def test_a_broken_contract_may_be_expected(sessions: Sessions) -> None:
    """It is an expected failure with its reason, and the other contracts are judged as ever."""
    sessions.write(BROKEN)
    result = sessions("-rx")
    result.assert_outcomes(passed=1, xfailed=1)
    result.stdout.fnmatch_lines(["XFAIL test_jobs.py::test_job[[]final_step[]] - saving the last step is on the list"])


def test_a_broken_default_set_may_be_expected(sessions: Sessions) -> None:
    """The reason is that of each contract of the set."""
    sessions.write(
        """
        @pytest.mark.ckpt_contract(xfail="#7")
        def test_job(ckpt_job):
            train(ckpt_job, every=3, save_last=False)
        """
    )
    sessions().assert_outcomes(xfailed=1, skipped=5, xpassed=3)


@pytest.mark.parametrize(("strict", "outcome"), [("false", {"xpassed": 1}), ("true", {"failed": 1})])
def test_a_contract_that_holds_unexpectedly(sessions: Sessions, strict: str, outcome: dict[str, int]) -> None:
    """It is XPASS, which is a failure where pytest is strict about that."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step(xfail="never worked")
        def test_job(ckpt_job):
            train(ckpt_job)
        """
    )
    result = sessions("-o", f"xfail_strict={strict}")
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines(["*test_job*XPASS*"])


def test_what_could_not_be_decided_was_not_expected(sessions: Sessions) -> None:
    """Only a broken contract is: that nothing was resumed is a fault of the test."""
    sessions.write(
        """
        @pytest.mark.ckpt_resumable(xfail="#7")
        def test_job(ckpt_job):
            class Afresh:
                path, resume_from = ckpt_job.path, None
            train(Afresh())
        """
    )
    result = sessions()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["checkpoint contract inconclusive: resumable"])


def test_a_job_that_does_not_run_was_not_expected(sessions: Sessions) -> None:
    """Nothing is known about its checkpoints."""
    sessions.write(
        """
        @pytest.mark.ckpt_resumable(xfail="#7")
        def test_job(ckpt_job):
            raise ValueError("no data")
        """
    )
    sessions().assert_outcomes(errors=1)


def test_the_whole_test_may_be_expected_to_fail(sessions: Sessions) -> None:
    """pytest's own mark covers whatever happens."""
    sessions.write(
        """
        @pytest.mark.xfail(reason="no data yet")
        @pytest.mark.ckpt_resumable
        def test_job(ckpt_job):
            raise ValueError("no data")
        """
    )
    sessions().assert_outcomes(xfailed=1)


# -- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["auto", "long", "short", "line", "native", "no"])
def test_a_failure_is_its_message_in_every_style_of_traceback(sessions: Sessions, style: str) -> None:
    """There is no traceback, which would be ours."""
    sessions.write(BROKEN.replace('xfail="saving the last step is on the list"', ""))
    result = sessions(f"--tb={style}", "--show-capture=no")
    result.assert_outcomes(passed=1, failed=1)
    assert 0 == result.stdout.str().count("pytest_ckpt/")
    if style not in {"line", "no"}:
        result.stdout.fnmatch_lines(["checkpoint contract broken: final_step", "  training ended at step 4 and *"])
    result.stdout.fnmatch_lines(
        ["FAILED test_jobs.py::test_job[[]final_step[]] - final_step broken: training ended at step*"]
    )


def test_the_message_of_a_broken_contract(sessions: Sessions) -> None:
    """It stands alone: what was expected, what is there, what to do and how to repeat it."""
    sessions.write(BROKEN.replace('xfail="saving the last step is on the list"', ""))
    lines = sessions("--show-capture=no").outlines
    start = lines.index("checkpoint contract broken: final_step")
    message = [line for line in lines[start:] if "evidence" not in line]
    assert snapshot("""\
checkpoint contract broken: final_step
  training ended at step 4 and the newest checkpoint is of step 3: step 4 is
  lost
    trained    4 steps
    saved at   step 3
    on disk    step_3.pt
  fix: save once more when training has ended, after the last step.
  saves    1 2 [3] (4)
           [n] on disk  (n) last step, lost: 4
           the runs' journals and copies of their checkpoints
  repeat   pytest --ckpt-contract "test_jobs.py::test_job[final_step]"\
""") == "\n".join(message[: message.index(next(line for line in message if "repeat" in line)) + 1])


def test_the_captured_output_of_the_job_is_shown_with_a_failure(sessions: Sessions) -> None:
    """Each kind has a section of its own, which is the child's; of progress bars the last state is left."""
    sessions.write(
        """
        import logging
        import sys
        import warnings

        handler = logging.StreamHandler()  # it holds the stream that pytest has put in place while it collects
        logging.getLogger("a-framework").addHandler(handler)

        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job):
            print("on stdout")
            for percent in (0, 50, 100):
                print(f"\\r{percent}% of the steps", end="", file=sys.stderr)
            print(file=sys.stderr)
            logging.getLogger("a-framework").warning("in the log")
            warnings.warn("mind the gap")
            train(ckpt_job, every=3, save_last=False)
        """
    )
    lines = sessions().outlines
    start = next(number for number, line in enumerate(lines) if "ckpt baseline" in line)
    end = next(number for number, line in enumerate(lines) if "checkpoint contracts" in line)
    shown = [line.replace(str(sessions.pytester.path), "") for line in lines[start:end]]
    assert snapshot("""\
--------------------------------------- ckpt baseline stdout ---------------------------------------
on stdout
--------------------------------------- ckpt baseline stderr ---------------------------------------
100% of the steps
in the log
---------------------------------------- ckpt baseline log -----------------------------------------
WARNING  a-framework: in the log
-------------------------------------- ckpt baseline warnings --------------------------------------
/test_jobs.py:19: UserWarning: mind the gap\
""") == "\n".join(shown)


def test_nothing_of_the_job_gets_into_what_pytest_captures(sessions: Sessions) -> None:
    """Neither does a live log, which pytest's own handler would write to the terminal."""
    sessions.write(
        """
        import logging

        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job):
            logging.getLogger("another-framework").warning("from a live log")
            train(ckpt_job, every=3, save_last=False)
        """
    )
    result = sessions("-o", "log_cli=true", f"--log-file={sessions.pytester.path / 'pytest.log'}")
    assert 1 == result.stdout.str().count("from a live log")
    result.stdout.no_fnmatch_line("*Captured*")
    assert "from a live log" not in (sessions.pytester.path / "pytest.log").read_text()


def test_quiet_sessions_have_one_line(sessions: Sessions) -> None:
    """With -q the section is a sentence; with -v each item has its line."""
    sessions.write(BROKEN)
    sessions("-q").stdout.fnmatch_lines(["checkpoint contracts: 1 ok, 1 xfail in 1 test*"])
    sessions("-v").stdout.fnmatch_lines(
        ["test_jobs.py::test_job[[]final_step[]] XFAIL*", "test_jobs.py::test_job[[]count[]] PASSED*"]
    )


def test_setting_up_without_calling(sessions: Sessions) -> None:
    """--setup-plan and --setup-only show fixtures and run no job."""
    sessions.write(COUNTED)
    sessions("--setup-plan").stdout.fnmatch_lines(["*SETUP    F ckpt_job*"])
    assert not (sessions.pytester.path / "fixtures.txt").exists()
    sessions("--setup-only").stdout.fnmatch_lines(["*SETUP    F counted*"])
    assert (sessions.pytester.path / "fixtures.txt").exists()
    assert not (sessions.pytester.path / "runs.txt").exists()
