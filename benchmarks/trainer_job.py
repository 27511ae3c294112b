"""A tiny Trainer job in a process of its own: alone, under the contracts, or as one would test it by hand."""

from __future__ import annotations

import json
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch._dynamo  # noqa: F401 - the first step of every optimizer imports it
import transformers
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments

from pytest_ckpt import contracts, frameworks, tiny
from pytest_ckpt.lab import Lab
from pytest_ckpt.runs.job import Job
from pytest_ckpt.shell.jobs import only_new_objects

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Contract


def train(output_dir: str, resume_from: str | None) -> None:
    """Train ten steps and save at 4, 8 and 10."""
    arguments = TrainingArguments(
        output_dir=output_dir,
        max_steps=10,
        save_steps=4,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(tiny.causal_lm(), arguments, train_dataset=tiny.text()).train(resume_from_checkpoint=resume_from)


def bare(folder: Path) -> None:
    """Run the job alone."""
    train(str(folder), None)


def ours(folder: Path) -> None:
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
    )
    default_set: list[Contract] = [one for kind in contracts.builtin() if (one := kind.default()) is not None]
    with only_new_objects():  # as the plugin does
        verdicts = lab.judge(default_set)
    if any(verdict.status != "held" for verdict in verdicts):
        sys.exit(f"the job should hold: {verdicts}")


def hand(folder: Path, *resume: str) -> None:
    """Train, or resume into a second directory and compare the final weights."""
    if not resume:
        train(str(folder / "one"), None)
        return
    train(str(folder / "two"), str(folder / "one" / "checkpoint-4"))
    first, second = (load_file(folder / run / "checkpoint-10" / "model.safetensors") for run in ("one", "two"))
    if any(not torch.equal(first[name], second[name]) for name in first):
        sys.exit("the resumed run differs")


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with redirect_stdout(sys.stderr):
        {"bare": bare, "ours": ours, "hand": hand}[sys.argv[1]](Path(sys.argv[2]).resolve(), *sys.argv[3:])
    sys.stdout.write(json.dumps({"job": time.perf_counter() - begun}) + "\n")
