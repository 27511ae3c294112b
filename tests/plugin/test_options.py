"""Every option has an ini twin, and a value that makes no sense is a usage error."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from inline_snapshot import snapshot

from plugin.test_markers import usage_error
from pytest_ckpt.settings import settings_key

if TYPE_CHECKING:
    from plugin.conftest import Sessions

TEST = """
    @pytest.mark.ckpt_final_step
    def test_job(ckpt_job):
        train(ckpt_job)
"""


def settings(pytester: pytest.Pytester, *arguments: str) -> dict[str, Any]:
    """Return the settings that a session resolves."""
    resolved = pytester.parseconfigure(*arguments).stash[settings_key]
    return {name: getattr(resolved, name) for name in resolved._fields}


def test_the_settings_of_a_session_that_asks_for_nothing(pytester: pytest.Pytester) -> None:
    """Contracts are off, and everything else has a good default."""
    assert {
        "enabled": False,
        "device": "cpu",
        "timeout": 120.0,
        "report": None,
        "start_method": "auto",
        "processes": len(os.sched_getaffinity(0)),
        "keep": False,
        "budget": 60.0,
        "crash": None,
    } == settings(pytester)


CASES = {
    "contract": (["--ckpt-contract"], "ckpt_contract = true", "enabled", True),
    "device": (["--ckpt-device=auto"], "ckpt_device = auto", "device", "auto"),
    "timeout": (["--ckpt-timeout=2.5"], "ckpt_timeout = 2.5", "timeout", 2.5),
    "budget": (["--ckpt-budget=2.5"], "ckpt_budget = 2.5", "budget", 2.5),
    "start-method": (["--ckpt-start-method", "spawn"], "ckpt_start_method = spawn", "start_method", "spawn"),
    "processes": (["--ckpt-processes=3"], "ckpt_processes = 3", "processes", 3),
    "keep": (["--ckpt-keep"], "ckpt_keep = yes", "keep", True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_flag_and_its_twin(pytester: pytest.Pytester, case: str) -> None:
    """They say the same."""
    flags, ini, name, expected = CASES[case]
    assert expected == settings(pytester, *flags)[name]
    pytester.makeini(f"[pytest]\n{ini}\n")
    assert expected == settings(pytester)[name]


def test_workers_share_the_cores(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under xdist each worker has its part of the cores, and at least one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for workers, expected in ((2, 4), (3, 2), (16, 1)):
        monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", str(workers))
        assert expected == settings(pytester)["processes"]


def test_a_flag_comes_before_its_twin(pytester: pytest.Pytester) -> None:
    """The command line has the last word."""
    pytester.makeini("[pytest]\nckpt_timeout = 7\nckpt_device = auto\n")
    found = settings(pytester, "--ckpt-timeout", "9", "--ckpt-device=cpu")
    assert (9.0, "cpu") == (found["timeout"], found["device"])


def test_the_report_of_a_flag_is_relative_to_where_pytest_is_started(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the ini option is relative to the root, wherever pytest is started."""
    pytester.makeini("[pytest]\nckpt_report = out/all.json\n")
    monkeypatch.chdir(pytester.mkdir("sub"))
    assert pytester.path / "sub" / "mine.json" == settings(pytester, "--ckpt-report", "mine.json")["report"]
    assert pytester.path / "out" / "all.json" == settings(pytester)["report"]


@pytest.mark.skipif(int(pytest.__version__.split(".")[0]) < 9, reason="pytest 9 reads this table")
def test_a_native_table_has_values_of_their_own_types(pytester: pytest.Pytester) -> None:
    """[tool.pytest] in pyproject.toml takes numbers and booleans."""
    pytester.makepyprojecttoml("[tool.pytest]\nckpt_contract = true\nckpt_timeout = 30\nckpt_device = 'auto'\n")
    found = settings(pytester)
    assert (True, 30.0, "auto") == (found["enabled"], found["timeout"], found["device"])


@pytest.mark.parametrize(
    ("ini", "expected"),
    [
        ("ckpt_contract = maybe", snapshot("ini option ckpt_contract: invalid truth value 'maybe'")),
        ("ckpt_keep = 7", snapshot("ini option ckpt_keep: invalid truth value '7'")),
        ("ckpt_device = tpu", snapshot("ini option ckpt_device: choose one of cpu, cuda, auto; got 'tpu'")),
        (
            "ckpt_start_method = thread",
            snapshot("ini option ckpt_start_method: choose one of auto, fork, spawn; got 'thread'"),
        ),
        ("ckpt_timeout = soon", snapshot("ini option ckpt_timeout: could not convert string to float: 'soon'")),
        (
            "ckpt_timeout = 0",
            snapshot(
                "ini option ckpt_timeout: give the seconds that one run of a job may take, a number above 0; got 0"
            ),
        ),
        (
            "ckpt_timeout = inf",
            snapshot(
                "ini option ckpt_timeout: give the seconds that one run of a job may take, a number above 0; got inf"
            ),
        ),
    ],
)
def test_a_wrong_value_in_an_ini_file(sessions: Sessions, ini: str, expected: str) -> None:
    """It is named with what would be right."""
    sessions.pytester.makeini(f"[pytest]\n{ini}\n")
    assert expected == usage_error(sessions.without_contracts())


@pytest.mark.parametrize("flag", ["--ckpt-timeout=-1", "--ckpt-timeout=nan"])
def test_a_time_that_is_none(sessions: Sessions, flag: str) -> None:
    """The flag is named."""
    message = f"--ckpt-timeout: give the seconds that one run of a job may take, a number above 0; got {flag[15:]}"
    assert message == usage_error(sessions.without_contracts(flag)).replace("\n ", "")


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_number_of_processes_that_is_none(sessions: Sessions, value: str) -> None:
    """The flag is named, and so is the ini option."""
    expected = f"give auto or the number of runs that may go on at a time, at least 1; got {value!r}"
    for where, flags in (("--ckpt-processes", [f"--ckpt-processes={value}"]), ("ini option ckpt_processes", [])):
        assert f"{where}: {expected}" == " ".join(usage_error(sessions.without_contracts(*flags)).split())
        sessions.pytester.makeini(f"[pytest]\nckpt_processes = {value}\n")


def test_a_crash_state_has_a_number(pytester: pytest.Pytester) -> None:
    """Below none there is none."""
    result = pytester.runpytest("--ckpt-crash=-1")
    result.stderr.fnmatch_lines(["*--ckpt-crash: give the number of a crash state*got -1*"])


@pytest.mark.parametrize("flag", ["--ckpt-device=tpu", "--ckpt-start-method=thread", "--ckpt-timeout=soon"])
def test_a_wrong_flag(sessions: Sessions, flag: str) -> None:
    """pytest's own parser refuses it."""
    result = sessions.without_contracts(flag)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"*error: argument {flag.partition('=')[0]}: invalid*"])


def test_contracts_switched_on_for_good(sessions: Sessions) -> None:
    """With the ini option no flag is needed, and the header says so."""
    sessions.pytester.makeini("[pytest]\nckpt_contract = true\n")
    sessions.write(TEST)
    result = sessions.without_contracts()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ckpt: contracts on, pytest-ckpt *, device cpu"])


def test_without_the_plugin(sessions: Sessions) -> None:
    """`-p no:ckpt` takes everything of it away."""
    sessions.write("def test_other(): pass")
    result = sessions.without_contracts("-p", "no:ckpt")
    result.assert_outcomes(passed=1)
    assert "--ckpt" not in sessions.without_contracts("-p", "no:ckpt", "--help").stdout.str()


def test_help_lists_each_flag_and_its_twin(sessions: Sessions) -> None:
    """The options are a group of their own."""
    text = sessions.without_contracts("--help").stdout.str()
    for name in ("contract", "device", "timeout", "report", "start-method", "processes", "keep"):
        assert f"  --ckpt-{name}" in text
        assert f"  ckpt_{name.replace('-', '_')} (" in text


def evidence(sessions: Sessions) -> list[str]:
    """Return the directories of evidence that the last session left."""
    return sorted(path.name for path in sessions.pytester.path.parent.rglob("*-evidence"))


def test_evidence_is_kept_where_a_contract_is_broken(sessions: Sessions) -> None:
    """The failure names where; of jobs whose contracts hold there is none."""
    sessions.write(TEST.replace("train(ckpt_job)", "train(ckpt_job, every=3, save_last=False)"))
    result = sessions("--basetemp", str(sessions.pytester.path / "base"))
    result.stdout.fnmatch_lines([f"  kept     {sessions.pytester.path}/base/test_job0/job-evidence"])
    assert (sessions.pytester.path / "base" / "test_job0" / "job-evidence").is_dir()


@pytest.mark.parametrize(("flags", "left"), [([], False), (["--ckpt-keep"], True)])
def test_evidence_of_contracts_that_hold(sessions: Sessions, flags: list[str], left: bool) -> None:  # noqa: FBT001
    """It is removed unless it is asked for."""
    sessions.write(TEST)
    sessions("--basetemp", str(sessions.pytester.path / "base"), *flags).assert_outcomes(passed=1)
    assert left == (sessions.pytester.path / "base" / "test_job0" / "job-evidence").is_dir()


def test_the_report_file(sessions: Sessions) -> None:
    """It holds every verdict, and the terminal says where it is."""
    sessions.write(TEST)
    result = sessions("--ckpt-report", "all.json")
    result.stdout.fnmatch_lines(["ckpt report: *all.json"])
    document = json.loads((sessions.pytester.path / "all.json").read_text())
    assert "held" in json.dumps(document)


def test_a_device_that_is_not_there(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is skipped with the reason: nothing can be said about it here."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    sessions.write(TEST)
    result = sessions("--ckpt-device=cuda", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * --ckpt-device cuda: torch finds no CUDA device here"])
