"""The cost of the plugin where no contract is asked for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Budget, in_turns

_LIMIT_MS = 10.0
_ROUNDS = 6


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Compare a run of one empty test with and without the plugin."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_nothing.py").write_text("def test_nothing():\n    pass\n", encoding="utf-8")
        run = {
            "without": lambda: _seconds(folder),
            "with": lambda: _seconds(folder, "-p", "pytest_ckpt.plugin"),
        }
        found = in_turns(run, repeats * _ROUNDS, summary=min)  # noise only adds to a fixed cost
    added = 1000 * (found["with"] - found["without"])
    budget = Budget(
        what="plugin installed, no contract asked",
        budget=f"at most {_LIMIT_MS:.0f} ms added",
        measured=f"{added:.1f} ms added",
        kept=added <= _LIMIT_MS,
    )
    text = (
        f"**Idle.** A pytest run of one empty test takes {1000 * found['without']:.0f} ms without the plugin and "
        f"{1000 * found['with']:.0f} ms with it (processor time, the fastest of {repeats * _ROUNDS} each). "
        "No framework is imported; a test sees to that."
    )
    return [budget], text


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
