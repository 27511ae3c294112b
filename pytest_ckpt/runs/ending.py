"""How a run ended and what it printed, from what its supervisor, its journal and its files of output say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ckpt.records.run import Outcome
from pytest_ckpt.runs.program_failure import name_of
from pytest_ckpt.runs.spawn import CRASHED
from pytest_ckpt.runs.supervise import STACKS_FOLLOW

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_ckpt.runs.assemble import Assembled
    from pytest_ckpt.runs.child import RunPlan
    from pytest_ckpt.runs.processes import Ended


def outcome(ended: Ended, seen: Assembled, method: str, stderr: Path) -> Outcome:
    """Return how a run ended, from what its supervisor and its journal say."""
    found = Outcome(
        status="stopped" if seen.stopped else "exited",
        exit_code=ended.exit_code,
        signal=ended.signal,
        leftovers=tuple(f"{process.command} (pid {process.pid})" for process in ended.leftovers),
        start_method=method,
        seconds=ended.seconds,
    )
    if ended.timed_out:
        text = stderr.read_text(encoding="utf-8", errors="replace")
        stacks = text.partition(STACKS_FOLLOW)[2].strip()
        return replace(found, status="hung", message=f"no end after {ended.seconds:.0f} s", traceback=stacks)
    if seen.stopped:
        return found
    if seen.end is not None:
        return replace(found, **seen.end)
    if ended.signal is not None:
        return replace(found, status="killed", message=f"its process was killed by {name_of(ended.signal)}")
    if ended.exit_code == CRASHED:  # it raised where the job could not
        why = next(reversed(stderr.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]), "")
        return replace(found, message=f"it could not be observed: {why or f'exit code {CRASHED}'}")
    return replace(found, message=f"its process left with exit code {ended.exit_code} in mid-run")


def sections(plan: RunPlan) -> dict[str, str]:
    """Return what the job printed, logged and warned."""
    found = {}
    for title in ("stdout", "stderr", "log", "warnings"):
        path = plan.output(title)
        raw = path.read_bytes() if path.exists() else b""  # as text, the carriage returns of progress bars were lost
        text = raw.decode(errors="replace")
        if text.strip():
            found[title] = text
    return found
