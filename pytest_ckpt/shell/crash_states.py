"""The crash states in which a job failed, kept as directories with a report on each, and tried again one by one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pytest_ckpt.records.experiment import TRACED, restart_after_crash
from pytest_ckpt.report.crash_report import crash_report
from pytest_ckpt.report.text import repeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.verdict import Verdict


def only_state(contract: Contract, number: int | None) -> Contract:
    """Return a contract that looks at one crash state only, if it looks at any."""
    of_states: Any = contract
    if number is None or "states" not in {one.name for one in fields(of_states)}:
        return contract
    only: Contract = replace(of_states, states=(number,))
    return only


def keep_states(lab: Lab, test: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Lay out each crash state that a verdict is about as a directory, and say where they are."""
    traced = lab.runs.get(TRACED)
    if traced is None or traced.trace is None:
        return ()
    folder = lab.folder / "states"
    for verdict in verdicts:
        for finding in verdict.findings:
            for number in finding.states:
                here = folder / str(number)
                lab.lay_out(traced.trace.states[number].tree, here / "directory")
                text = crash_report(
                    number, traced.trace, verdict.contract, finding, lab.runs.get(restart_after_crash(number))
                )
                again = repeat(f"{test}[{verdict.contract}]", number)
                (here / "report.txt").write_text(f"{text}\nagain      {again}\n", encoding="utf-8")
    return (f"{folder}: the crash states, each as a directory with a report",) if folder.exists() else ()
