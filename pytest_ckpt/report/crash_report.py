"""A short report on one crash state: what was being done, what lay there, what a restart did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.records.crash import Trace
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Finding

#: How many operations are shown before the crash, and after it.
_AROUND: Final = 6


def crash_report(number: int, trace: Trace, contract: str, finding: Finding, run: RunRecord | None) -> str:
    """Return the report as lines of text."""
    state = trace.states[number]
    crash = f"the power failed, and {state.lost} were lost" if state.lost else "the job was killed"
    lines = [
        f"state      {number}: {crash}",
        f"contract   {contract}: {finding.title}",
        f"restart    {_restart(run)}",
        f"fix        {finding.fix}",
        "operations",
        *_operations(number, trace),
        "directory",
        *(f"    {entry.path}{_size(entry.kind, entry.size)}" for entry in state.tree.entries),
    ]
    return "\n".join(lines)


def _operations(number: int, trace: Trace) -> Iterator[str]:
    """Yield what was done before, and what would have been done next."""
    state = trace.states[number]
    last = state.until if state.cut is None else state.operations
    for place in range(max(0, last - _AROUND), min(len(trace.operations), last + _AROUND)):
        done = " (not carried out yet)" if place in state.undone else ""
        if place == last - 1 and state.cut is not None:
            done = f" (of which {state.cut} bytes had arrived)"
        if place == last:
            yield "    -- crash --"
        yield f"    {place + 1:4}  {trace.operations[place].text}{done}"
    if last >= len(trace.operations):
        yield "    -- crash --"


def _restart(run: RunRecord | None) -> str:
    if run is None:
        return "was not tried"
    if not run.outcome.ok:
        return f"{run.outcome.status}: {run.outcome.message}"
    return "trained on, and was ended after its first step" if run.steps else "ended without training"


def _size(kind: str, size: int) -> str:
    return f"  {size} bytes" if kind == "file" else "/" if kind == "dir" else ""
