"""How many steps of its schedule a rehearsal makes in a second."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from benchmarks.measure import Budget

_LEAST: Final = 1000
_STEPS: Final = 5000


def measure(repeats: int) -> tuple[list[Budget], str]:
    """Rehearse a Trainer in fresh interpreters, importing not counted."""
    found = statistics.median(_in_fresh() for _ in range(repeats))
    budget = Budget(
        what="rehearsal of a Trainer of transformers",
        budget=f"at least {_LEAST} optimizer steps a second",
        measured=f"{found:.0f} steps a second",
        kept=found >= _LEAST,
    )
    text = (
        f"**Rehearsal.** A schedule of {_STEPS} steps with an evaluation and a save every 500, the run's process and all that is "
        "recorded of it included."
    )
    return [budget], text


def _in_fresh() -> float:
    command = [sys.executable, "-m", "benchmarks.rehearsal"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _steps_a_second() -> float:
    import torch
    from transformers import Trainer, TrainingArguments

    from pytest_ckpt import frameworks, tiny
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.shell.jobs import only_new_objects

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "job")
        directory.mkdir()
        job = Job(directory, frameworks=frameworks.builtin())

        def rehearse() -> None:
            schedule = {"max_steps": _STEPS, "save_steps": 500, "eval_strategy": "steps", "eval_steps": 500}
            arguments = TrainingArguments(job.dir, use_cpu=True, report_to=[], disable_tqdm=True, **schedule)
            data = tiny.text(1000)
            job.rehearse(Trainer(tiny.causal_lm(), arguments, train_dataset=data, eval_dataset=data))

        evidence, known = Path(folder, "evidence"), frameworks.builtin()
        lab = Lab(job=job, body=rehearse, folder=evidence, seed_text="benchmark", frameworks=known)
        begun = time.perf_counter()
        with redirect_stdout(sys.stderr), only_new_objects():
            run = lab.run()
        if run.last_step != _STEPS:
            sys.exit(f"the rehearsal should have made {_STEPS} steps: {run.outcome}")
        return _STEPS / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_steps_a_second()) + "\n")
