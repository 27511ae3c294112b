"""What is said of a job that could not be run to its end, and what its runs have put out."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from pytest_ckpt.errors import HarnessError

if TYPE_CHECKING:
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.run import RunRecord

#: Characters of a run's captured output that a report shows.
_SHOWN: Final = 4000
#: Free bytes with which a disk counts as full.
_ROOM: Final = 1 << 16


def explained(run: RunRecord, lab: Lab) -> str:
    """Say how the baseline failed: nothing can be said about the checkpoints of a job that does not run."""
    outcome = run.outcome
    lines = [failure(run), *filter(None, [full_disk(lab)])]
    lines += [f"  {line}" for line in outcome.traceback.rstrip().splitlines()]
    if outcome.status == "hung":
        lines.append("  the job was ended; --ckpt-timeout sets how long a run may take")
    lines += [f"  left a process behind, which was ended: {process}" for process in outcome.leftovers]
    return "\n".join(lines)


def failure(run: RunRecord) -> str:
    """Say in one line which run failed, when and how."""
    how = next(iter(run.outcome.message.splitlines()), run.outcome.status)
    title = "" if run.experiment.kind == "baseline" else f" in the {run.experiment.title}"
    return f"the job failed{title} {_when(run.last_step)}: {how}"


def full_disk(lab: Lab) -> str:
    """Say that there is no room for runs and their evidence; empty if there is."""
    free = shutil.disk_usage(lab.folder.parent).free
    if free >= _ROOM:
        return ""
    return f"  the disk of {lab.folder.parent} is full, with {free} bytes left; give it room, or another place with --basetemp"


def _when(steps: int) -> str:
    if steps == 0:
        return "before its first optimizer step"
    return f"after {steps} optimizer step{'' if steps == 1 else 's'}"


def unobserved(error: HarnessError | OSError, lab: Lab) -> str:
    """Say why the job's runs could not be carried out or observed: the reason is not in the job."""
    if isinstance(error, HarnessError):
        return f"the job could not be run: {error}"
    why = (
        full_disk(lab) or f"  its runs and their evidence need {lab.folder.parent}; see to it that it can be written to"
    )
    return f"the job could not be run: {error}\n{why}"


def kept(lab: Lab) -> tuple[str, ...]:
    """Name the directory that is kept for a look."""
    return (f"{lab.folder}: journals and output of the runs",) if lab.folder.exists() else ()


def sections(lab: Lab) -> tuple[tuple[str, ...], ...]:
    """Return the captured output of the baseline and of runs that failed, though nothing was damaged before.

    Of the many that were started after a crash it is that of the first, and none of those whose calls were to fail: the output
    of all lies with the evidence. What several put out alike is there once.
    """
    told = [run for run in lab.runs.values() if _is_told(run)]
    crashes = [run.experiment.crash for run in told if run.experiment.crash is not None]
    found: dict[tuple[str, str], str] = {}
    for run in told:
        if run.experiment.crash is None or run.experiment.crash == min(crashes):
            for title, text in run.sections.items():
                found.setdefault((title, _shown(text)), f"ckpt {run.experiment.title} {title}")
    return tuple((heading, text) for (_, text), heading in found.items())


def _is_told(run: RunRecord) -> bool:
    disturbed = run.experiment.damage is not None or run.experiment.fault is not None
    return run.experiment.kind == "baseline" or not (run.outcome.ok or disturbed)


def _shown(text: str) -> str:
    """Return the end of a text, of progress bars only their last state."""
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    text = "\n".join(line for line in lines if line.strip())
    return text if len(text) <= _SHOWN else f"[...]\n{text[-_SHOWN:]}"
