"""Crash states of the same jobs, by ckpt-chaos and by `ckpt_crash_safe`, in turns; writes docs/crash_comparison.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]
_PAGE: Final = _ROOT / "docs" / "crash_comparison.md"
_LOOP: Final = Path(__file__).with_name("crash_loop.py")
_ABOUT: Final = """\
# Crash states: side by side with ckpt-chaos

Made by `tox -e chaos`: [ckpt-chaos](https://pypi.org/project/ckpt-chaos/) {chaos} and `ckpt_crash_safe` on the same jobs,
one after the other on one machine, each as its own command from start to end. ckpt-chaos kills a fresh run of the job at
each event, and lets the restart train to its end; `ckpt_crash_safe` builds the states from one run and watches a step of
each restart. The first job is ckpt-chaos's own, `bench hf_trainer`.

| job | tool | states tried | of which broken | what it says | wall time |
|---|---|---|---|---|---|
{rows}

{ratio}

{machine}
"""
_TRAINER: Final = """
import pytest
from ckpt_chaos.targets.hf_trainer import Hooks, make_trainer

@pytest.mark.ckpt_crash_safe
def test_job(ckpt_job):
    ckpt_job.train(make_trainer(str(ckpt_job.dir), Hooks(stop_at=10)))
"""
_LOOPS: Final = """
import pytest
from pathlib import Path
from crash_loop import train

@pytest.mark.ckpt_crash_safe
def test_job(ckpt_job):
    assert ckpt_job.restarting is not None
    train(Path(ckpt_job.dir), atomic=ATOMIC)
"""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a tool came to."""

    states: int
    broken: int
    says: str
    seconds: float


def theirs(folder: Path, *command: str) -> Tried:
    """Run ckpt-chaos and read its table."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ckpt_chaos", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - started
    verdicts = re.findall(r"\b(HARD_FAIL|SILENT_DIVERGENCE|LOST_WORK|PASS)\b", _table(done.stdout))
    broken = [verdict for verdict in verdicts if verdict != "PASS"]
    says = ", ".join(f"{broken.count(verdict)} {verdict}" for verdict in dict.fromkeys(broken)) or "PASS"
    return Tried(states=len(verdicts), broken=len(broken), says=says, seconds=seconds)


def _table(output: str) -> str:
    """Return the lines of the crash points, without the control run and the summary."""
    lines = [line for line in output.splitlines() if re.search(r"HARD_FAIL|SILENT_DIVERGENCE|LOST_WORK|PASS", line)]
    return "\n".join(line for line in lines if "no crash" not in line and not re.match(r"\s*\d+ ?/|\s*\w+:", line))


def ours(folder: Path, test: str) -> Tried:
    """Run pytest and read its report."""
    (folder / "test_job.py").write_text(test, encoding="utf-8")
    report = folder / "report.json"
    command = [sys.executable, "-m", "pytest", "-q", "--ckpt-contract", f"--ckpt-report={report}", "test_job.py"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_LOOP.parent), os.environ.get("PYTHONPATH", "")])}
    started = time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    seconds = time.monotonic() - started
    (test_of_job,) = json.loads(report.read_text(encoding="utf-8"))["tests"]
    sentence = test_of_job["contracts"][0]["sentence"]
    numbers = [int(number) for number in re.findall(r"\d+(?= (?:of|states))", sentence)]
    broken, states = numbers if len(numbers) > 1 else (0, numbers[0])
    return Tried(states=states, broken=broken, says=sentence, seconds=seconds)


def main() -> None:
    """Measure, print and write the page."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        made = {}
        for job, command, test in (
            ("transformers' Trainer", ("bench", "hf_trainer"), _TRAINER),
            ("loop, in place", _run(), _LOOPS.replace("ATOMIC", "False")),
            ("loop, renamed", _run("--atomic"), _LOOPS.replace("ATOMIC", "True")),
        ):
            folder = Path(temporary, str(len(rows)))
            folder.mkdir()
            made[job] = theirs(folder, *command), ours(folder, test)
            rows += [
                _row(job, tool, tried) for tool, tried in zip(("ckpt-chaos", "ckpt_crash_safe"), made[job], strict=True)
            ]
    other, own = made["transformers' Trainer"]
    ratio = (
        f"On the Trainer: {own.states / other.states:.1f} times the states in 1/{other.seconds / own.seconds:.0f} of the time; "
        f"{other.seconds / other.states:.1f} s a state against {own.seconds / own.states:.2f} s."
    )
    machine = f"Python {sys.version.split()[0]}, torch {version('torch')}, transformers {version('transformers')}."
    page = _ABOUT.format(chaos=version("ckpt-chaos"), rows="\n".join(rows), ratio=ratio, machine=machine)
    sys.stdout.write(page)
    _PAGE.write_text(page, encoding="utf-8")


def _run(*arguments: str) -> tuple[str, ...]:
    pattern = r"resumed from step (\d+)"
    options = ("--step-regex", pattern, "--result-file", "{out}/final.pt", "--max-points", "200")
    return ("run", *options, "--", sys.executable, str(_LOOP), "--out", "{out}", *arguments)


def _row(job: str, tool: str, tried: Tried) -> str:
    return f"| {job} | {tool} | {tried.states} | {tried.broken} | {tried.says} | {tried.seconds:.1f} s |"


if __name__ == "__main__":
    main()
