"""The cost of the plugin where no contract is asked for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Budget

_LIMIT_MS = 10.0
_ROUNDS = 20
#: The plugin of the other run: to load any plugin, pytest reads what each installed package says of itself.
_EMPTY = "empty_plugin"


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Compare a run of one empty test with this plugin and with an empty one."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        (Path(folder) / f"{_EMPTY}.py").write_text('"""A plugin that does nothing."""\n', encoding="utf-8")
        runs = [_alone_and_together(folder, number) for number in range(repeats * _ROUNDS)]
    without = min(alone for alone, _ in runs)
    added = 1000 * (min(together for _, together in runs) - without)
    budget = Budget(
        what="plugin installed, no contract asked",
        budget=f"at most {_LIMIT_MS:.0f} ms added",
        measured=f"{added:.1f} ms added",
        kept=added <= _LIMIT_MS,
    )
    text = (
        f"**Idle.** A pytest run of one empty test takes {1000 * without:.0f} ms of processor time with an empty plugin, and "
        f"{added:.1f} ms more with this one in its place: the least of {len(runs)} runs each, in turn, as whatever else the "
        "machine does can only add to it. No framework is imported; a test sees to that."
    )
    return [budget], text


def _alone_and_together(folder: str, number: int) -> tuple[float, float]:
    """Return what a run takes without the plugin, and with it; each is the first every other time."""
    if number % 2:
        alone = _seconds(folder, _EMPTY)
        return alone, _seconds(folder, "pytest_ckpt.plugin")
    together = _seconds(folder, "pytest_ckpt.plugin")
    return _seconds(folder, _EMPTY), together


def _seconds(folder: str, plugin: str) -> float:
    """Return the processor time of one run, which other processes disturb less than they do the time on the wall."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # what is compiled once is no cost of each run
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", plugin, "test_nothing.py"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
