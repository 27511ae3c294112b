"""The cost of the default set on a tiny job of each framework, against the job alone and what one writes by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.measure import Budget, in_turns

_LIMIT: Final = 4.0
_JOBS: Final = {
    "transformers": "a Trainer of transformers",
    "lightning": "a Lightning Trainer",
    "plain": "a plain loop",
}
#: A run of a job that takes less is all start of processes; then the whole cost is bounded instead.
_SHORT: Final = 0.25
_LIMIT_SHORT: Final = 4 * _SHORT


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Take bare and checked jobs in turns, each in fresh interpreters, importing not counted."""
    kinds = {f"{kind} {name}": partial(_seconds, kind, name) for name in _JOBS for kind in ("bare", "ours")}
    found = in_turns({**kinds, "hand": _by_hand}, repeats)
    budgets = [_budget(name, found[f"bare {name}"], found[f"ours {name}"]) for name in _JOBS]
    whole = _in_fresh("ours", "transformers")["whole"]
    lines = [
        f"* {_JOBS[name]}: {found[f'bare {name}']:.2f} s bare, {found[f'ours {name}']:.2f} s with the default set"
        for name in _JOBS
    ]
    text = (
        "**Default set.** A job of 10 steps that saves at 4, 8 and 10, alone in a fresh process, and with all contracts of the "
        "default set: the baseline, a resume from each checkpoint, the control and the comparison. Imports are excluded.\n\n"
        + "\n".join(lines)
        + "\n\n**By hand.** What one writes today to see one resume of the Trainer: a process that trains to the end, a second "
        f"that resumes from one checkpoint, and a comparison of the final weights: {found['hand']:.2f} s with its two cold "
        f"imports. The plugin checks all checkpoints, every step and every component in {whole:.2f} s, its one import included "
        f"({found['hand'] / whole:.1f} times as fast)."
    )
    return budgets, text


def _budget(name: str, bare: float, ours: float) -> Budget:
    what = f"default set on {_JOBS[name]}, resumes from every checkpoint included"
    if bare < _SHORT:
        return Budget(
            what=what,
            budget=f"at most {_LIMIT_SHORT:.0f} s, import excluded, for a job of less than {_SHORT} s",
            measured=f"{ours:.2f} s",
            kept=ours <= _LIMIT_SHORT,
        )
    ratio = ours / bare
    budget = f"at most {_LIMIT:.0f}x the job's own bare run, import excluded"
    return Budget(what=what, budget=budget, measured=f"{ratio:.1f}x", kept=ratio <= _LIMIT)


def versions() -> str:
    """Return the frameworks measured with."""
    names = ("torch", "transformers", "accelerate", "lightning")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def _seconds(kind: str, framework: str) -> float:
    return _in_fresh(kind, framework)["job"]


def _in_fresh(kind: str, framework: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = _run(kind, framework, folder)
        answer = json.loads(done.stdout.splitlines()[-1])
        return {"whole": time.perf_counter() - started, **answer}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.one_job", *arguments]
    return subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)


def _by_hand() -> float:
    """Train, resume in a second process from the first checkpoint, compare the last ones."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for arguments in ((), ("resume",)):
            _run("hand", "transformers", folder, *arguments)
    return time.perf_counter() - started
