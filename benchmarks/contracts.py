"""The cost of the default set of contracts on a tiny Trainer job, against the job alone and against what one writes by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from benchmarks.measure import Budget, in_turns

_LIMIT = 4.0
_STEPS, _EVERY = 10, 4


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Take the three ways in turns, each in fresh interpreters, importing not counted where it is the same."""
    kinds = {"bare": lambda: _in_fresh("bare")["job"], "ours": lambda: _in_fresh("ours")["job"], "hand": _by_hand}
    found = in_turns(kinds, repeats)
    ratio = found["ours"] / found["bare"]
    whole = _in_fresh("ours")["whole"]
    budget = Budget(
        what="default set on a tiny Trainer job, resumes from every checkpoint included",
        budget=f"at most {_LIMIT:.0f}x the job's own bare run, import excluded",
        measured=f"{ratio:.1f}x",
        kept=ratio <= _LIMIT,
    )
    text = (
        f"**Default set.** A Trainer job of {_STEPS} steps with {_EVERY} steps between saves takes {found['bare']:.2f} s in "
        f"a fresh process, imports excluded. All four contracts of the default set, with a resume from each of its checkpoints, "
        f"the control and the comparison take {found['ours']:.2f} s ({ratio:.1f}x).\n\n"
        f"**By hand.** What one writes today to see one resume: a process that trains to the end, a second that resumes from "
        f"one checkpoint, and a comparison of the final weights: {found['hand']:.2f} s with its two cold imports. "
        f"The plugin checks all checkpoints, every step and every component in {whole:.2f} s, its one import included "
        f"({found['hand'] / whole:.1f} times as fast)."
    )
    return [budget], text


def versions() -> str:
    """Return the frameworks measured with."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "accelerate"))


def _in_fresh(kind: str, *arguments: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.trainer_job", kind, folder, *arguments]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
        answer = json.loads(done.stdout.splitlines()[-1])
        return {"whole": time.perf_counter() - started, **answer}


def _by_hand() -> float:
    """Train, resume in a second process from the first checkpoint, compare the last ones."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for arguments in ((), ("resume",)):
            command = [sys.executable, "-m", "benchmarks.trainer_job", "hand", folder, *arguments]
            subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True)
    return time.perf_counter() - started
