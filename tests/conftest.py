"""What holds for every test of the suite: the same run, whatever the shell and the installed plugins say."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _inner_runs_are_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep pytest-randomly, and whatever the shell asks of pytest, out of the runs that pytester starts."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:randomly")
    monkeypatch.delenv("PYTEST_PLUGINS", raising=False)
