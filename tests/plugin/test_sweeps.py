"""A job is run with each combination of a sweep, and each contract tells of the smallest that breaks it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from plugin.conftest import Sessions

SWEPT = """
    @pytest.mark.ckpt_sweep(every=[2, 3], last=range(3, 7))
    @pytest.mark.ckpt_final_step
    @pytest.mark.ckpt_count(2)
    def test_job(ckpt_job, every, last, pytestconfig):
        with (pytestconfig.rootpath / "runs.txt").open("a") as file:
            file.write(f"{every}-{last} ")
        assert not list(ckpt_job.path.iterdir())
        train(ckpt_job, every=every, last=last, save_last=False)
"""


def evidence(sessions: Sessions) -> list[str]:
    """Return the names of the folders that were kept."""
    own = sessions.pytester.path.parent / f"tmp-{sessions.pytester.path.name}"
    return sorted(path.name for path in own.rglob("job-evidence*"))


def test_each_combination_is_run_once_from_small_to_large(sessions: Sessions) -> None:
    """For all contracts of the test, each in a directory as the fixtures left it; each contract stays one item."""
    sessions.write(SWEPT)
    assert {"test_job[final_step]": "failed", "test_job[count]": "failed"} == sessions.outcomes()
    assert "2-3 2-4 3-3 2-5 3-4 2-6 3-5 3-6" == (sessions.pytester.path / "runs.txt").read_text().strip()


def test_the_smallest_that_breaks_is_told_of_with_its_steps(sessions: Sessions) -> None:
    """Each contract has its own; the evidence of no other is kept."""
    sessions.write(SWEPT.replace("range(3, 7)", "[4, 5, 6]").replace("ckpt_count(2)", "ckpt_count(1)"))
    result = sessions("--ckpt-report=report.json")
    result.stdout.fnmatch_lines(
        [
            "  every=2, last=5: training ended at step 5 and the newest checkpoint is of step",
            "    combinations   3 broke, 3 held, of 6",
            "  saves    1 [[]2[]] 3 [[]4[]] (5)",
            "           journals and copies of checkpoints of the runs with every=2, last=5",
            "  every=2, last=4: 2 checkpoints on disk, expected 1",
            "    combinations   4 broke, 2 held, of 6",
            "  saves    1 [[]2[]] 3 [[]4[]]",
        ]
    )
    (test,) = json.loads((sessions.pytester.path / "report.json").read_text())["tests"]
    assert 5 == test["job"]["timeline"]["steps"]
    assert ["every=2, last=4: baseline"] == [one["title"] for one in test["job"]["experiments"]][:1]
    assert ["job-evidence1", "job-evidence2"] == evidence(sessions)


def test_a_trainer_is_swept_as_it_is_trained_and_as_it_is_rehearsed(sessions: Sessions) -> None:
    """The same combination is the smallest, and is shown with its steps."""
    sessions.write(
        """
        from jobs import hf

        class OnlyBetween(hf.TrainerCallback):
            def on_step_end(self, args, state, control, **_):
                if state.global_step % args.save_steps:
                    control.should_save = False

        def trainer(job, max_steps, save_steps):
            saving = {"save_strategy": "steps", "save_steps": save_steps}
            return hf.trainer(job, callbacks=[OnlyBetween()], max_steps=max_steps, **saving)

        @pytest.mark.ckpt_sweep(save_steps=[2, 3], max_steps=[6, 8])
        class TestSchedules:
            @pytest.mark.ckpt_final_step
            def test_trained(self, ckpt_job, save_steps, max_steps):
                ckpt_job.train(trainer(ckpt_job, max_steps, save_steps))

            @pytest.mark.ckpt_final_step
            def test_rehearsed(self, ckpt_job, save_steps, max_steps):
                ckpt_job.rehearse(trainer(ckpt_job, max_steps, save_steps))
        """
    )
    result = sessions.apart("-v", timeout=180)
    result.assert_outcomes(failed=2)
    told = ["  save_steps=3, max_steps=8: training ended at step 8 and the newest checkpoint*"]
    told += ["    combinations   1 broke, 3 held, of 4", "  saves    1 2 [[]3[]] 4 5 [[]6[]] 7 (8)"]
    result.stdout.fnmatch_lines([*told, *told])


def test_each_combination_starts_from_what_the_fixtures_made(sessions: Sessions) -> None:
    """Whatever the runs before it have left, those that resume included."""
    sessions.write(
        """
        @pytest.fixture
        def config(ckpt_job):
            (ckpt_job.path / "config.json").write_text("{}")

        @pytest.mark.ckpt_sweep(last=[4, 5, 6])
        @pytest.mark.ckpt_final_step
        @pytest.mark.ckpt_resumable
        def test_job(ckpt_job, last, config):
            names = [path.name for path in ckpt_job.path.iterdir()]
            assert names == ["config.json"] or not ckpt_job.is_baseline, names
            train(ckpt_job, last=last)
        """
    )
    assert {"test_job[final_step]": "passed", "test_job[resumable]": "passed"} == sessions.outcomes()


def test_all_that_hold_are_one_that_passes(sessions: Sessions) -> None:
    """Nothing of them is kept; with -k, the job is run for the contract that is left."""
    sessions.write(SWEPT.replace("save_last=False", "save_last=True"))
    result = sessions("-k", "final_step", "-v", "--ckpt-report=report.json")
    result.assert_outcomes(passed=1, deselected=1)
    (test,) = json.loads((sessions.pytester.path / "report.json").read_text())["tests"]
    (contract,) = test["contracts"]
    assert "all 8 combinations hold" == contract["sentence"]
    assert test["job"]["timeline"] is None
    assert [] == evidence(sessions)


def test_a_sweep_may_be_known_to_break(sessions: Sessions) -> None:
    """`xfail` of a contract, marks of a class and parametrization work as without a sweep."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(last=[4, 5])
        class TestTraining:
            @pytest.mark.ckpt_final_step(xfail="#7")
            @pytest.mark.parametrize("every", [2, 5])
            def test_job(self, ckpt_job, every, last):
                train(ckpt_job, every=every, last=last, save_last=False)

            @pytest.mark.ckpt_sweep(end=[2, 4])
            @pytest.mark.ckpt_final_step
            def test_near(self, ckpt_job, end):
                train(ckpt_job, last=end, save_last=False)
        """
    )
    result = sessions("-rx", "-v")
    result.assert_outcomes(xfailed=2, passed=1)
    result.stdout.fnmatch_lines(["*test_job[[]2-final_step[]] XFAIL*", "*test_job[[]5-final_step[]] XFAIL*"])
    sessions("-m", "ckpt_sweep and ckpt_final_step").assert_outcomes(xfailed=2, passed=1)


def test_workers_share_what_a_sweep_came_to(sessions: Sessions) -> None:
    """With pytest-xdist, too, each combination is run once."""
    pytest.importorskip("xdist")
    sessions.write(SWEPT)
    result = sessions.apart("-n2", "-p", "xdist")
    result.assert_outcomes(failed=2)
    assert 8 == len((sessions.pytester.path / "runs.txt").read_text().split())


def test_of_too_many_combinations_a_sample_is_run(sessions: Sessions) -> None:
    """It is said how many, and the search goes on towards the smallest."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(every=range(1, 40), last=range(3, 9), most=20)
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, every, last):
            train(ckpt_job, every=every, last=last, save_last=False)
        """
    )
    result = sessions()
    result.stdout.fnmatch_lines(
        [
            "  every=2, last=3: training ended at step 3 *",
            "    combinations   6 broke, 4 held, of 10 tried among 234",
            "  note: 10 of 234 *",
        ]
    )


def test_a_combination_may_leave_itself_out(sessions: Sessions) -> None:
    """One that makes no sense is not judged; where all do, the test is skipped."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(every=[2, 3], last=[1, 4, 6])
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, every, last):
            if last < every:
                pytest.skip("would never save")
            train(ckpt_job, every=every, last=last, save_last=False)

        @pytest.mark.ckpt_sweep(every=[2, 3])
        @pytest.mark.ckpt_final_step
        def test_none(ckpt_job, every):
            pytest.skip("not today")
        """
    )
    result = sessions("-rs")
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.fnmatch_lines(["    combinations   1 broke, 3 held, 2 skipped, of 6", "SKIPPED*every=2: not today"])


def test_a_combination_whose_job_fails_is_named(sessions: Sessions) -> None:
    """Nothing is known of its checkpoints, so that the sweep comes to no verdict."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(every=[2, 0, 3])
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, every):
            train(ckpt_job, every=every)
        """
    )
    result = sessions()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "every=0: the job failed after 1 optimizer step: ZeroDivisionError*",
            "  2 of 3 combinations were run; one that makes no sense can be left out by pytest.skip(...) in the test",
        ]
    )


def test_equal_values_are_run_once_and_equal_numbers_of_other_kinds_are_not_equal(sessions: Sessions) -> None:
    """A framework may take 1 for a step and 1.0 for the whole run."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(every=[1, 1, 1.0, True])
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, every, pytestconfig):
            with (pytestconfig.rootpath / "runs.txt").open("a") as file:
                file.write(f"{every!r} ")
            train(ckpt_job)
        """
    )
    sessions().assert_outcomes(passed=1)
    assert ["1", "1.0", "True"] == (sessions.pytester.path / "runs.txt").read_text().split()


def test_all_evidence_is_kept_where_that_is_asked_for(sessions: Sessions) -> None:
    """Of each combination."""
    sessions.write(SWEPT.replace("save_last=False", ""))
    sessions("--ckpt-keep", "-k", "final_step").assert_outcomes(passed=1, deselected=1)
    assert 8 == len(evidence(sessions))


def test_without_contracts_a_swept_test_is_skipped(sessions: Sessions) -> None:
    """As any other with a contract."""
    sessions.write(SWEPT)
    sessions.without_contracts().assert_outcomes(skipped=2)


# -- what can't be followed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("ckpt_sweep(often=[2])", "ckpt_sweep(often=...): the test takes no argument often; it takes ckpt_job, every"),
        ("ckpt_sweep(every=[])", "ckpt_sweep(every=[]): there is no value to run the job with"),
        (
            "ckpt_sweep(every=3)",
            "ckpt_sweep(every=3): give the values as a list or a range, the smallest first; got int",
        ),
        ("ckpt_sweep(every='ab')", "*got str"),
        ("ckpt_sweep(every={2, 3})", "*the smallest first; got set"),
        ("ckpt_sweep(every=iter([2]))", "*got list_iterator"),
        ("ckpt_sweep()", "ckpt_sweep takes the values by the names of the test's arguments, such as ckpt_sweep(*"),
        (
            "ckpt_sweep([2, 3])",
            "ckpt_sweep takes the values by the names of the test's arguments, such as ckpt_sweep(*",
        ),
        (
            "ckpt_sweep(every=[2], most=0)",
            "ckpt_sweep(most=0): give the number of combinations that may be run, 1 or more",
        ),
        ("ckpt_sweep(every=[2], most=True)", "ckpt_sweep(most=True): *"),
        ("ckpt_sweep(ckpt_job=[2])", "ckpt_sweep(ckpt_job=...): ckpt_job is a fixture*"),
        ("ckpt_swep(every=[2])", "unknown contract marker ckpt_swep; did you mean ckpt_sweep?*"),
    ],
)
def test_a_wrong_sweep_is_a_usage_error(sessions: Sessions, mark: str, told: str) -> None:
    """It names the test, when tests are collected."""
    sessions.write(
        f"""
        @pytest.mark.{mark}
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job, every=2):
            train(ckpt_job)
        """
    )
    _is_refused(sessions, f"ERROR: test_jobs.py::test_job: {told}".replace("[", "[[]"))


def _is_refused(sessions: Sessions, told: str) -> None:
    result = sessions()
    assert pytest.ExitCode.USAGE_ERROR == result.ret, result.stdout.str()
    result.stderr.fnmatch_lines([told])


def test_an_argument_that_is_parametrized_can_not_be_swept(sessions: Sessions) -> None:
    """Two would decide on it."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(every=[2])
        @pytest.mark.ckpt_final_step
        @pytest.mark.parametrize("every", [3])
        def test_job(ckpt_job, every):
            train(ckpt_job)
        """
    )
    _is_refused(sessions, "*test_job[[]3[]]: ckpt_sweep(every=...): every is parametrized already*")


def test_an_argument_that_is_a_fixture_can_not_be_swept(sessions: Sessions) -> None:
    """Nor one that a fixture takes, which is set up once for all combinations."""
    sessions.write(
        """
        @pytest.fixture
        def every():
            return 2

        @pytest.mark.ckpt_sweep(every=[2])
        @pytest.mark.ckpt_final_step
        def test_fixture(ckpt_job, every):
            train(ckpt_job)

        @pytest.fixture
        def trainer(last):
            return last

        @pytest.mark.ckpt_sweep(last=[2])
        @pytest.mark.ckpt_final_step
        def test_taken(ckpt_job, last, trainer):
            train(ckpt_job)
        """
    )
    result = sessions()
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        [
            "*test_fixture: ckpt_sweep(every=...): every is a fixture*",
            "*test_taken: *last is taken by the fixture trainer*",
        ]
    )


def test_a_sweep_without_a_contract_is_a_usage_error(sessions: Sessions) -> None:
    """There is nothing to run the job for."""
    sessions.write(
        """
        @pytest.mark.ckpt_sweep(every=[2])
        def test_job(every):
            pass
        """
    )
    _is_refused(sessions, "*test_jobs.py::test_job: ckpt_sweep varies the job of a contract*put a contract beside it*")


def test_a_sweep_of_a_set_of_parameters_is_a_usage_error(sessions: Sessions) -> None:
    """It comes too late to give the test its arguments; so does one that a hook adds."""
    sessions.write(
        """
        @pytest.mark.ckpt_final_step
        @pytest.mark.parametrize("last", [pytest.param(4, marks=pytest.mark.ckpt_sweep(every=[2]))])
        def test_job(ckpt_job, last, every):
            train(ckpt_job)
        """
    )
    _is_refused(sessions, "*test_job[[]4[]]: ckpt_sweep of a set of parameters can't be followed*")
