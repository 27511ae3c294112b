"""A repository whose checkpoints are tested, and sessions of pytest in it."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent
from typing import Final

import pytest

# Modules that inner sessions use stay when those end: pytester forgets what they import, and torch can't be imported twice.
import torch._dynamo  # noqa: F401

from plugin import loop  # noqa: F401 - as above
from pytest_ckpt.runs import probe, saves  # noqa: F401 - as above

TESTS: Final = Path(__file__).resolve().parent.parent
#: What each inner test module begins with.
HEAD: Final = """\
import pytest
from plugin.loop import train

"""
#: Plugins of the outer session that inner ones do without.
QUIET: Final = (
    "-p",
    "no:randomly",
    "-p",
    "no:hypothesispytest",
    "-p",
    "no:inline_snapshot",
    "-p",
    "no:anyio",
    "-W",
    "default",
)


class Sessions:
    """Runs pytest in a repository of its own, as often as one likes."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        monkeypatch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        monkeypatch.setenv("COLUMNS", "100")

    def write(self, source: str, name: str = "test_jobs") -> None:
        """Write a test module; `pytest` and `plugin.loop.train` are imported there."""
        self.pytester.makepyfile(**{name: HEAD + dedent(source)})

    def __call__(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in this process, with contracts switched on."""
        return self.pytester.runpytest_inprocess(*QUIET, "--ckpt-contract", *arguments)

    def apart(self, *arguments: str, timeout: float = 60) -> pytest.RunResult:
        """Run pytest in a process of its own, with contracts switched on."""
        return self.pytester.runpytest_subprocess(*QUIET, "--ckpt-contract", *arguments, timeout=timeout)

    def without_contracts(self, *arguments: str) -> pytest.RunResult:
        """Run pytest in this process as if the plugin were merely installed."""
        return self.pytester.runpytest_inprocess(*QUIET, *arguments)

    def outcomes(self, *arguments: str) -> dict[str, str]:
        """Run pytest in this process; return what each item came to, by the end of its node id."""
        recorder = self.pytester.inline_run(*QUIET, "--ckpt-contract", *arguments)
        reports = [report for report in recorder.getreports("pytest_runtest_logreport") if report.when != "teardown"]
        return {report.nodeid.rpartition("::")[2]: report.outcome for report in reports}


@pytest.fixture
def sessions(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Sessions:
    """Sessions of pytest in a repository of its own."""
    return Sessions(pytester, monkeypatch)
