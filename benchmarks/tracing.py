"""What it costs a job that its system calls are seen."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.measure import Budget, in_turns

_MOST: Final = 1.2
_RUNS: Final = 5


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Run a Trainer traced and untraced, in turns, each in a fork of one fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.tracing", str(repeats * _RUNS)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    ratio = found["traced"] / found["untraced"]
    budget = Budget(
        what="system calls of a Trainer traced",
        budget=f"at most {_MOST:.1f}x the untraced run",
        measured=f"{ratio:.2f}x",
        kept=ratio <= _MOST,
    )
    text = (
        f"**Tracing.** The language model of above, ten steps and three saves by transformers' Trainer: {found['operations']} "
        f"operations seen, {found['traced']:.2f} s against {found['untraced']:.2f} s; the least of {repeats * _RUNS} runs each."
    )
    return [budget], text


def _compare(runs: int) -> dict[str, float]:
    import torch

    from benchmarks import jobs
    from pytest_ckpt import frameworks
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.experiment import REPEAT, TRACED
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.shell.jobs import only_new_objects

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "job")
        directory.mkdir()
        job = Job(directory, frameworks=frameworks.builtin())
        evidence, body = Path(folder, "evidence"), partial(jobs.transformers, job.dir, None)
        lab = Lab(job=job, body=body, folder=evidence, seed_text="benchmark", frameworks=frameworks.builtin())

        def seconds(experiment: object) -> float:
            lab.runs.pop(experiment, None)  # type: ignore[call-overload]
            return lab.run(experiment).outcome.seconds  # type: ignore[arg-type]

        with redirect_stdout(sys.stderr), only_new_objects():
            lab.run()
            kinds = {"untraced": partial(seconds, REPEAT), "traced": partial(seconds, TRACED)}
            found = in_turns(kinds, runs, min)
        trace = lab.runs[TRACED].trace
        return {**found, "operations": len(trace.operations) if trace is not None else 0}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_compare(int(sys.argv[1]))) + "\n")
