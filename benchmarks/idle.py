"""The cost of the plugin where no contract is asked for."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Budget

_LIMIT_MS = 10.0
_ROUNDS = 10


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Compare a run of one empty test with and without the plugin."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        pairs = [_pair(folder) for _ in range(repeats * _ROUNDS)]
    without = statistics.median(alone for alone, _ in pairs)
    added = 1000 * statistics.median(together - alone for alone, together in pairs)
    budget = Budget(
        what="plugin installed, no contract asked",
        budget=f"at most {_LIMIT_MS:.0f} ms added",
        measured=f"{added:.1f} ms added",
        kept=added <= _LIMIT_MS,
    )
    text = (
        f"**Idle.** A pytest run of one empty test takes {1000 * without:.0f} ms of processor time without the plugin. The "
        f"median of {len(pairs)} differences, each of two runs in turn, is {added:.1f} ms. No framework is imported; a test "
        "sees to that."
    )
    return [budget], text


def _pair(folder: str) -> tuple[float, float]:
    """Return what a run takes without the plugin, and what the next takes with it."""
    return _seconds(folder), _seconds(folder, "-p", "pytest_ckpt.plugin")


def _seconds(folder: str, *arguments: str) -> float:
    """Return the processor time of one run, which other processes disturb less than they do the time on the wall."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_nothing.py"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
