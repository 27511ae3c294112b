"""What was seen of a run's system calls, put together into its record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_ckpt.crashes.answering import Answer, Signalling, noted_in
from pytest_ckpt.crashes.log import Log
from pytest_ckpt.crashes.states import replayed, states
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.crashes.tracer import Tracing
from pytest_ckpt.records.crash import Trace
from pytest_ckpt.runs.together import training_with

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_ckpt.checkpoints.store import EvidenceStore
    from pytest_ckpt.records.run import Look
    from pytest_ckpt.records.tree import Tree
    from pytest_ckpt.runs.child import RunPlan
    from pytest_ckpt.runs.processes import Ended


def tracing_of(plan: RunPlan) -> Tracing | None:
    """Return what is to be traced of a run; None where nothing is asked for, or nothing can be seen."""
    if not plan.traced or why_not():
        return None
    answer = None if plan.fault is None else Answer(plan.fault, plan.directory, _refused_in(plan))
    signalling = None if plan.strike is None else Signalling(plan.strike, _refused_in(plan), _with_others(plan.folder))
    delay = 0.0 if plan.slowness is None else plan.slowness.seconds
    return Tracing(root=plan.directory, folder=plan.folder, answer=answer or signalling, delay=delay)


def _with_others(folder: Path) -> Callable[[int], list[int]]:
    """Return what tells, in the process above a job's, which processes train with one."""
    return lambda process: training_with(process, os.getpid(), folder)


def _refused_in(plan: RunPlan) -> Path:
    return plan.folder / "refused.jsonl"


def trace_of(plan: RunPlan, ended: Ended, looks: Sequence[Look], store: EvidenceStore) -> Trace | None:
    """Return what was seen of a run that has just ended, and the states in which kills could have left its directory."""
    tracing = tracing_of(plan)
    if tracing is None:
        return Trace(unsupported=why_not()) if plan.traced else None
    if ended.untraced or not looks:
        return Trace(doubt=ended.untraced or "the job's process ended before its directory was looked at")
    log = Log.read(tracing.operations, tracing.bytes)
    initial = looks[0].tree

    def read(digest: str) -> bytes:
        return store.path_of(digest).read_bytes()

    left = store.capture(plan.directory)
    doubt = _unseen(log) or _difference(replayed(log, initial, read), left)
    ends = {look.step: look.time_ns for look in looks}.values()  # the last of each step
    is_whole = not doubt and plan.fault is None and plan.strike is None and plan.slowness is None
    found = states(log, initial, read, store.keep, ends) if is_whole else ()
    return Trace(
        operations=log.operations,
        states=found,
        refused=noted_in(_refused_in(plan)),
        abandoned=noted_in(tracing.abandoned),
        left=left,
        doubt=doubt,
    )


def _unseen(log: Log) -> str:
    """Say what went by without a system call, or by one that tells too little."""
    found = next((operation for operation in log.operations if operation.kind == "unseen"), None)
    if found is None:
        return ""
    what = "is written through memory (a shared mmap)" if found.call == "mmap" else f"is changed by {found.call}"
    return f"{found.path or 'a file'} {what}, which is not seen"


def _difference(expected: Tree, found: Tree) -> str:
    """Say in what the directory is not what the operations should have left."""
    gone, changed = found.gone_since(expected), found.changed_since(expected)
    more = tuple(entry.path for entry in found.entries if entry.path not in expected)
    paths = sorted({*gone, *changed, *more})
    if not paths:
        return ""
    return f"{paths[0]} is not what the operations that were seen should have left: something changed it unseen"
