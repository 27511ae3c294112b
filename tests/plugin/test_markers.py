"""Markers are checked when tests are collected: one clean error that names the test and the right call."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

import pytest
from inline_snapshot import snapshot

if TYPE_CHECKING:
    from plugin.conftest import Sessions


def usage_error(result: pytest.RunResult) -> str:
    """Return what a session that ended with a usage error said, and nothing else was said."""
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    lines = "\n".join(line for line in result.errlines if line).removeprefix("ERROR: ").splitlines()
    return "\n".join(part for line in lines for part in wrap(line, 100, subsequent_indent="  "))


def marked(sessions: Sessions, mark: str) -> str:
    """Return what is said of a mark."""
    sessions.write(
        f"""
        @pytest.mark.{mark}
        def test_job(ckpt_job):
            train(ckpt_job)
        """
    )
    return usage_error(sessions("-W", "ignore"))


def test_a_misspelt_marker(sessions: Sessions) -> None:
    """The one that was meant is named."""
    assert snapshot(
        """\
test_jobs.py::test_job: unknown contract marker ckpt_finalstep; did you mean ckpt_final_step? Known:
  ckpt_final_step, ckpt_steps, ckpt_count, ckpt_aligned, ckpt_logged, ckpt_retention, ckpt_best,
  ckpt_complete, ckpt_loadable, ckpt_faithful, ckpt_compact, ckpt_resumable, ckpt_stable_schedule,
  ckpt_latest, ckpt_relocatable, ckpt_pure, ckpt_on_error, ckpt_crash_safe, ckpt_power_safe,
  ckpt_disk_full, ckpt_preemptible, ckpt_async_durable\
"""
    ) == marked(sessions, "ckpt_finalstep")


def test_a_marker_like_no_other(sessions: Sessions) -> None:
    """The known ones are listed."""
    assert snapshot(
        """\
test_jobs.py::test_job: unknown contract marker ckpt_zzz. Known: ckpt_final_step, ckpt_steps,
  ckpt_count, ckpt_aligned, ckpt_logged, ckpt_retention, ckpt_best, ckpt_complete, ckpt_loadable,
  ckpt_faithful, ckpt_compact, ckpt_resumable, ckpt_stable_schedule, ckpt_latest, ckpt_relocatable,
  ckpt_pure, ckpt_on_error, ckpt_crash_safe, ckpt_power_safe, ckpt_disk_full, ckpt_preemptible,
  ckpt_async_durable\
"""
    ) == marked(sessions, "ckpt_zzz")


def test_an_unknown_argument(sessions: Sessions) -> None:
    """The right signature is shown."""
    assert snapshot(
        """\
test_jobs.py::test_job: ckpt_count(exactly=3): there is no argument 'exactly'. Right: ckpt_count(n,
  *, xfail=None)\
"""
    ) == marked(sessions, "ckpt_count(exactly=3)")


def test_a_missing_argument(sessions: Sessions) -> None:
    """A bare mark and empty parentheses are alike."""
    expected = snapshot(
        """\
test_jobs.py::test_job: ckpt_count(): missing a required argument: 'n'. Right: ckpt_count(n, *,
  xfail=None)\
"""
    )
    assert expected == marked(sessions, "ckpt_count()")
    assert expected == marked(sessions, "ckpt_count")


def test_too_many_arguments(sessions: Sessions) -> None:
    """Positional ones are counted."""
    assert snapshot(
        """\
test_jobs.py::test_job: ckpt_final_step(True, False): too many positional arguments. Right:
  ckpt_final_step(*, weights_only=False, xfail=None)\
"""
    ) == marked(sessions, "ckpt_final_step(True, False)")


def test_a_value_that_makes_no_sense(sessions: Sessions) -> None:
    """The contract itself says what it takes."""
    assert snapshot(
        """\
test_jobs.py::test_job: ckpt_count(-1): n must be a whole number of checkpoints, 0 or more; got -1.
  Right: ckpt_count(n, *, xfail=None)\
"""
    ) == marked(sessions, "ckpt_count(-1)")
    assert snapshot(
        """\
test_jobs.py::test_job: ckpt_resumable('nearly'): level must be one of runs, state, data, exact; got
  'nearly'. Right: ckpt_resumable(level='exact', *, steps=None, tolerance=None, reseed=True,
  xfail=None)\
"""
    ) == marked(sessions, "ckpt_resumable('nearly')")


@pytest.mark.parametrize("reason", ["True", "''", "3"])
def test_a_reason_that_is_no_text(sessions: Sessions, reason: str) -> None:
    """What is expected to fail says why."""
    message = f"test_jobs.py::test_job: ckpt_count(xfail={reason}): give the reason as text"
    assert message == marked(sessions, f"ckpt_count(3, xfail={reason})")


def test_an_argument_of_the_default_set(sessions: Sessions) -> None:
    """It takes the reason of an expected failure, and no more."""
    assert snapshot(
        """\
test_jobs.py::test_job: ckpt_contract(3): it takes no other argument. Right:
  ckpt_contract(xfail=None)\
"""
    ) == marked(sessions, "ckpt_contract(3)")


def test_all_problems_are_told_at_once(sessions: Sessions) -> None:
    """Each test has a line, also a parametrized one and one that is deselected."""
    sessions.write(
        """
        @pytest.mark.ckpt_count
        @pytest.mark.parametrize("a", [1, 2])
        def test_one(ckpt_job, a): pass

        @pytest.mark.ckpt_zount(1)
        def test_two(ckpt_job): pass
        """
    )
    assert snapshot("""\
test_jobs.py::test_one[1]: ckpt_count(): missing a required argument: 'n'. Right: ckpt_count(n, *,
  xfail=None)
test_jobs.py::test_one[2]: ckpt_count(): missing a required argument: 'n'. Right: ckpt_count(n, *,
  xfail=None)
test_jobs.py::test_two: unknown contract marker ckpt_zount; did you mean ckpt_count? Known:
  ckpt_final_step, ckpt_steps, ckpt_count, ckpt_aligned, ckpt_logged, ckpt_retention, ckpt_best,
  ckpt_complete, ckpt_loadable, ckpt_faithful, ckpt_compact, ckpt_resumable, ckpt_stable_schedule,
  ckpt_latest, ckpt_relocatable, ckpt_pure, ckpt_on_error, ckpt_crash_safe, ckpt_power_safe,
  ckpt_disk_full, ckpt_preemptible, ckpt_async_durable\
""") == usage_error(sessions("-W", "ignore", "-k", "one"))


def test_a_wrong_marker_is_an_error_without_contracts_too(sessions: Sessions) -> None:
    """It must not wait for the nightly run."""
    sessions.write(
        """
        @pytest.mark.ckpt_count
        def test_job(ckpt_job): pass
        """
    )
    assert "test_jobs.py::test_job" in usage_error(sessions.without_contracts())
    assert "test_jobs.py::test_job" in usage_error(sessions.without_contracts("--collect-only"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            """
            import unittest

            @pytest.mark.ckpt_final_step
            class TestJobs(unittest.TestCase):
                def test_job(self): pass
            """,
            snapshot(
                """\
test_jobs.py::TestJobs::test_job: ckpt_final_step works on test functions and methods of plain
  classes, not on TestCaseFunction\
"""
            ),
        ),
        (
            """
            @pytest.mark.ckpt_final_step
            async def test_job(ckpt_job): pass
            """,
            snapshot(
                """\
test_jobs.py::test_job: ckpt_final_step can't run an async test as a training job; make it a plain
  function\
"""
            ),
        ),
        (
            """
            @pytest.mark.ckpt_final_step
            async def test_job(ckpt_job): yield
            """,
            snapshot(
                """\
test_jobs.py::test_job: ckpt_final_step can't run an async test as a training job; make it a plain
  function\
"""
            ),
        ),
        (
            """
            @pytest.mark.ckpt_final_step
            def test_job(tmp_path): pass
            """,
            snapshot(
                """\
test_jobs.py::test_job: ckpt_final_step needs the fixture ckpt_job as an argument of the test: it
  says where to write and to resume from\
"""
            ),
        ),
    ],
    ids=["unittest", "async", "async generator", "no job"],
)
def test_tests_that_are_no_jobs(sessions: Sessions, source: str, expected: str) -> None:
    """A mark where it can't work is an error, and not a test that passes unchecked."""
    sessions.write(source)
    assert expected == usage_error(sessions("-W", "ignore"))


def test_a_mark_of_a_set_of_parameters_alone(sessions: Sessions) -> None:
    """Which items there are is the same for all sets of parameters."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.parametrize("every", [2, pytest.param(3, marks=pytest.mark.ckpt_count(1))])
        def test_job(ckpt_job, every): pass

        @pytest.mark.parametrize("every", [2, pytest.param(3, marks=pytest.mark.ckpt_count(1))])
        def test_unmarked(every): pass
        """
    )
    assert snapshot("""\
test_jobs.py::test_job[3]: ckpt_count of a set of parameters needs the same mark on the test, whose
  arguments it then replaces
test_jobs.py::test_unmarked[3]: ckpt_count of a set of parameters needs the same mark on the test,
  whose arguments it then replaces\
""") == usage_error(sessions())


def test_doctests_have_no_marks(sessions: Sessions) -> None:
    """A conftest that marks everything is told where that can't work."""
    sessions.pytester.makeconftest(
        """
        import pytest

        def pytest_itemcollected(item):
            item.add_marker("ckpt_final_step")
        """
    )
    sessions.pytester.makepyfile(
        module='''"""
        >>> 1 + 1
        2
        """
    '''
    )
    assert snapshot(
        """\
module.py::module: ckpt_final_step works on test functions and methods of plain classes, not on
  DoctestItem\
"""
    ) == usage_error(sessions("--doctest-modules"))


def test_a_mark_that_comes_too_late(sessions: Sessions) -> None:
    """Items are made when a test is collected: a mark that a hook adds afterwards would check nothing."""
    sessions.pytester.makeconftest(
        """
        def pytest_collection_modifyitems(items):
            for item in items:
                item.add_marker("ckpt_final_step")
        """
    )
    sessions.write("def test_job(): pass")
    assert snapshot(
        """\
test_jobs.py::test_job: ckpt_final_step was added when tests had been collected; put it on the
  function, its class or its module\
"""
    ) == usage_error(sessions())


def test_a_job_through_a_fixture_counts(sessions: Sessions) -> None:
    """The test need not take ckpt_job itself where one of its fixtures does."""
    sessions.write(
        """
        @pytest.fixture
        def training(ckpt_job):
            return lambda: train(ckpt_job)

        @pytest.mark.ckpt_final_step
        def test_job(training):
            training()
        """
    )
    sessions().assert_outcomes(passed=1)


def test_the_job_in_a_test_without_a_mark(sessions: Sessions) -> None:
    """It is an error of that test, which says what to do."""
    sessions.write(
        """
        def test_job(ckpt_job): pass
        """
    )
    result = sessions()
    result.assert_outcomes(errors=1)
    lines = result.outlines
    assert "Traceback" not in result.stdout.str()
    start = next(number for number, line in enumerate(lines) if "ERROR at setup" in line) + 1
    assert snapshot("""\
test_jobs.py::test_job uses ckpt_job and asks for no contract: mark it, such as with
@pytest.mark.ckpt_final_step; a test that asserts by hand uses ckpt_run\
""") == "\n".join(wrap(lines[start], 100))
    sessions.without_contracts().assert_outcomes(errors=1)


def test_without_contracts_marked_tests_are_skipped(sessions: Sessions) -> None:
    """The reason says how they are switched on."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(1, xfail="#7")
        def test_job(ckpt_job):
            raise AssertionError
        """
    )
    result = sessions.without_contracts("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(
        ["SKIPPED [[]2[]] test_jobs.py:5: checkpoint contracts are switched on by --ckpt-contract (or ini *"]
    )
    result.stdout.no_fnmatch_line("*checkpoint contracts =*")


def test_the_manual(sessions: Sessions) -> None:
    """`pytest --markers` shows each contract with its arguments."""
    lines = sessions.without_contracts("--markers").outlines
    shown = [line.partition(": ")[0] for line in lines if line.startswith("@pytest.mark.ckpt_")]
    assert (
        snapshot(
            [
                "@pytest.mark.ckpt_contract(xfail=None)",
                "@pytest.mark.ckpt_sweep(*, most=50, **values)",
                "@pytest.mark.ckpt_final_step(*, weights_only=False, xfail=None)",
                "@pytest.mark.ckpt_steps(steps=None, *, every=None, final=None, xfail=None)",
                "@pytest.mark.ckpt_count(n, *, xfail=None)",
                "@pytest.mark.ckpt_aligned(*, max_lost_steps=None, xfail=None)",
                "@pytest.mark.ckpt_logged(*, pattern=None, xfail=None)",
                "@pytest.mark.ckpt_retention(keep=None, *, best=None, xfail=None)",
                "@pytest.mark.ckpt_best(metric=None, mode=None, *, path=None, xfail=None)",
                "@pytest.mark.ckpt_complete(*, xfail=None)",
                "@pytest.mark.ckpt_loadable(*, weights_only=False, strict=True, newest=False, xfail=None)",
                "@pytest.mark.ckpt_faithful(*, xfail=None)",
                "@pytest.mark.ckpt_compact(slack=1.1, *, xfail=None)",
                "@pytest.mark.ckpt_resumable(level='exact', *, steps=None, tolerance=None, reseed=True, xfail=None)",
                "@pytest.mark.ckpt_stable_schedule(*, change=None, xfail=None)",
                "@pytest.mark.ckpt_latest(*, damaged=True, fall_back=False, stale=False, xfail=None)",
                "@pytest.mark.ckpt_relocatable(*, xfail=None)",
                "@pytest.mark.ckpt_pure(*, xfail=None)",
                "@pytest.mark.ckpt_on_error(*, xfail=None)",
                "@pytest.mark.ckpt_crash_safe(*, fall_back=True, most=100, states=(), xfail=None)",
                "@pytest.mark.ckpt_power_safe(*, fall_back=True, most=100, states=(), xfail=None)",
                "@pytest.mark.ckpt_disk_full(*, errors=('ENOSPC', 'EDQUOT', 'EIO'), fall_back=True, most=12, xfail=None)",
                "@pytest.mark.ckpt_preemptible(signal='SIGTERM', *, grace=30.0, exit_code=None, phases=None, xfail=None)",
                "@pytest.mark.ckpt_async_durable(*, xfail=None)",
            ]
        )
        == shown
    )


def test_strict_markers_know_every_contract(sessions: Sessions) -> None:
    """So that a typo is an error at the line where it stands."""
    sessions.write(
        """
        @pytest.mark.ckpt_contract
        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_count(2)
        @pytest.mark.ckpt_faithful
        @pytest.mark.ckpt_resumable
        def test_job(ckpt_job): pass
        """
    )
    sessions.without_contracts("--strict-markers", "-W", "error").assert_outcomes(skipped=9)
