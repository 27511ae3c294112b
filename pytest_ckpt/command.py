"""One command on a configuration file: the run that it describes is rehearsed, and it is said what that saves."""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import JobResult
from pytest_ckpt.report import timeline
from pytest_ckpt.report.text import explain
from pytest_ckpt.report.wrapping import wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.verdict import Verdict

_WIDTH: Final = 80
_WORDS: Final = {"held": "ok", "violated": "BROKEN", "inconclusive": "undecided", "not_applicable": "n/a"}
#: Exit codes, those of pytest.
_HELD, _BROKEN, _FAILED, _USAGE = 0, 1, 3, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse, print what is saved and what is wrong with it, and return the exit code."""
    asked = _parser().parse_args(arguments)
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        return _complain(f"{' and '.join(missing)} can't be found; pip install pytest-ckpt[transformers]", _USAGE)
    from pytest_ckpt.configs import read

    try:
        schedule = read(asked.file, dataset_len=asked.dataset_len, world_size=asked.world_size)
        contracts = _contracts(asked)
    except InvalidArgument as error:
        return _complain(str(error), _USAGE)
    _say(wrap(f"{asked.file}: {schedule.origin}", _WIDTH))
    with tempfile.TemporaryDirectory(prefix="ckpt-rehearsal-") as folder:
        lab = _lab(Path(folder).resolve(), asked)
        outcome = lab.run().outcome
        if not outcome.ok:
            return _complain(f"the rehearsal failed: {outcome.message or outcome.status}", _FAILED)
        return _tell(lab, lab.judge(contracts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pytest_ckpt",
        description="Rehearse the whole schedule of a training run without its compute, and say what it saves.",
    )
    add = parser.add_argument
    add("file", help="configuration of Axolotl or LLaMA-Factory, or with arguments of transformers; YAML or JSON")
    add("--dataset-len", type=int, metavar="N", help="samples that the trainer is given; counted where it can be")
    add("--world-size", type=int, default=1, metavar="N", help="processes of the real run (default: 1)")
    add("--max-lost-steps", type=int, metavar="N", help="how many steps may be lost; the interval need not divide then")
    add("--timeout", type=float, default=600.0, metavar="SECONDS", help="for the rehearsal (default: 600)")
    return parser


def _contracts(asked: argparse.Namespace) -> list[Contract]:
    """Return what a schedule alone decides."""
    from pytest_ckpt.contracts.alignment import Aligned
    from pytest_ckpt.contracts.best_model import Best
    from pytest_ckpt.contracts.retention import Retention
    from pytest_ckpt.contracts.saving import Count, FinalStep
    from pytest_ckpt.contracts.scheduling import Steps

    return [FinalStep(), Steps(), Count(None), Aligned(max_lost_steps=asked.max_lost_steps), Retention(), Best()]


def _lab(folder: Path, asked: argparse.Namespace) -> Lab:
    from pytest_ckpt.frameworks import builtin
    from pytest_ckpt.lab import Lab, LabSettings
    from pytest_ckpt.runs.job import Job

    directory = folder / "run"
    directory.mkdir()
    job = Job(directory, frameworks=builtin())
    return Lab(
        job=job,
        body=partial(job.rehearse_config, asked.file, dataset_len=asked.dataset_len, world_size=asked.world_size),
        folder=folder / "evidence",
        seed_text="rehearsal",
        frameworks=builtin(),
        settings=LabSettings(timeout=asked.timeout),
    )


def _tell(lab: Lab, verdicts: Sequence[Verdict]) -> int:
    """Print what was saved and each verdict, first in a line and then in full where something is wrong."""
    _say([f"rehearsed {lab.run().last_step} steps in {lab.run().outcome.seconds:.1f}s", ""])
    _say([timeline.draw(lab.timeline, _WIDTH), *filter(None, [timeline.legend(lab.timeline)]), ""])
    for verdict in verdicts:
        _say(_line(verdict))
    result = JobResult(test="", timeline=None)
    for verdict in verdicts:
        if not verdict.ok:
            _say(["", explain(verdict, result, "")])
    return _HELD if all(verdict.ok for verdict in verdicts) else _BROKEN


def _line(verdict: Verdict) -> Iterator[str]:
    start = f"{verdict.contract:12}{_WORDS[verdict.status]:11}"
    sentence = "" if verdict.findings else verdict.sentence
    yield from wrap(sentence, _WIDTH, first=start, rest=" " * len(start)) if sentence else [start.rstrip()]


def _say(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code
