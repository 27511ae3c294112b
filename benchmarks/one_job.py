"""A tiny job in a process of its own: alone, under the contracts, or as one would test it by hand."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from benchmarks import jobs
from pytest_ckpt import contracts, frameworks
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.runs.job import Job
from pytest_ckpt.shell.jobs import only_new_objects

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.contracts.base import Contract

#: What a training repository has imported before its job runs.
_IMPORTED: Final = {
    "transformers": ("transformers.trainer",),
    "lightning": ("lightning.pytorch", "transformers.models.llama"),
    "plain": ("transformers.models.llama",),
}


def ours(train: Callable[[str, str | None], None], folder: Path) -> None:
    """Check the default set."""
    directory = folder / "job"
    directory.mkdir()
    job = Job(directory, frameworks=frameworks.builtin())
    lab = Lab(
        job=job,
        body=lambda: train(job.dir, job.resume_from),
        folder=folder / "evidence",
        seed_text="benchmark",
        frameworks=frameworks.builtin(),
        settings=LabSettings(processes=len(os.sched_getaffinity(0))),
    )
    default_set: list[Contract] = [one for kind in contracts.builtin() if (one := kind.default()) is not None]
    with only_new_objects():  # as the plugin does
        verdicts = lab.judge(default_set)
    if any(verdict.status not in {"held", "not_applicable"} for verdict in verdicts):
        sys.exit(f"the job should hold: {verdicts}")


def hand(train: Callable[[str, str | None], None], folder: Path, *resume: str) -> None:
    """Train, or resume into a second directory and compare the final weights."""
    if not resume:
        train(str(folder / "one"), None)
        return
    from safetensors.torch import load_file

    train(str(folder / "two"), str(folder / "one" / "checkpoint-4"))
    first, second = (load_file(folder / run / "checkpoint-10" / "model.safetensors") for run in ("one", "two"))
    if any(not torch.equal(first[name], second[name]) for name in first):
        sys.exit("the resumed run differs")


def main(kind: str, framework: str, folder: Path, *more: str) -> None:
    """Do one of them, and print how long the job took, imports left out."""
    for module in _IMPORTED[framework]:
        import_module(module)
    torch.set_num_threads(1)
    train = getattr(jobs, framework)
    begun = time.perf_counter()
    with redirect_stdout(sys.stderr):
        if kind == "bare":
            train(str(folder), None)
        else:
            {"ours": ours, "hand": hand}[kind](train, folder, *more)
    sys.stdout.write(json.dumps({"job": time.perf_counter() - begun}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve(), *sys.argv[4:])
