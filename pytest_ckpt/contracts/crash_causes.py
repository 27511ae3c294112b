"""Saying by which operations a kill costs a job what it had saved, and how to save, or to search, instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.publishing import pointings, publications

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.crash_scenes import CrashScene
    from pytest_ckpt.contracts.publishing import Publication
    from pytest_ckpt.contracts.restarts import Restarted
    from pytest_ckpt.records.crash import Trace
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.run import RunRecord

_ATOMIC: Final = (
    "write under another name beside it, fsync, and give it its name by one rename when it is whole; or write one file "
    "last, and have the search pass over what lacks it."
)
_AT_ONCE: Final = "write the pointer to a temporary name beside it, and replace it by one rename."


def why(found: Restarted, scene: CrashScene, run: RunRecord, advisor: Advisor) -> str:
    """Say why a restart did what it must not do: what it took for whole, and from when to when that was not."""
    if found.way in {"older", "idle"}:
        return _why(found)
    assert run.trace is not None  # noqa: S101 - the contract has looked
    known, done = publications(run, advisor), run.trace.states[scene.number].until
    pointer = _without_pointer(known, done, run) or _named_early(known, done, run)
    return pointer or f"{_why(found)}{_unfinished(known, done)}"


def _why(found: Restarted) -> str:
    if found.difference is not None:
        return f"a file that is not there yet is taken for one that was never saved: {found.difference.component}."
    return {
        "refused": "the search takes the newest name, and does not look whether what lies there is whole.",
        "older": "the search passes over what had been saved wholly, or it has been named elsewhere too late.",
        "scratch": "what can't be read, or is not found, counts as a first start.",
        "idle": "the job takes what it found for the end of the run.",
    }.get(found.way, "an unfinished file is read as far as it goes.")


def how_to_find(found: Restarted, scene: CrashScene, run: RunRecord, advisor: Advisor) -> str:
    """Say how to save, or to search, so that what is unfinished does not lie in the way."""
    assert run.trace is not None  # noqa: S101 - the contract has looked
    known, done = publications(run, advisor), run.trace.states[scene.number].until
    if found.way not in {"older", "idle"} and _without_pointer(known, done, run):
        return _AT_ONCE
    if scene.newest is None or found.way not in {"refused", "newest", "elsewhere"}:
        return _ATOMIC
    return advisor.component("crash", scene.newest).fix or _ATOMIC


def _named_early(known: Sequence[Publication], done: int, run: RunRecord) -> str:
    """Say which pointer names what is not whole when so many operations have begun; empty where none does."""
    for pointer in pointings(run, known):
        if pointer.number < done <= pointer.to.last:
            names = f"{pointer.path} names {pointer.to.path} by operation {pointer.number + 1}"
            return f"{names}, too early: that is whole after operation {pointer.to.last + 1}."
    return ""


def _without_pointer(known: Sequence[Publication], done: int, run: RunRecord) -> str:
    """Say which pointer is empty, or gone, when so many operations have begun; nothing where what is unfinished may be why."""
    assert run.trace is not None  # noqa: S101 - the contract has looked
    for pointer in () if _unfinished(known, done) else pointings(run, known):
        if pointer.begun is not None and pointer.begun < done <= pointer.number:
            how = "removed" if run.trace.operations[pointer.begun].kind == "unlink" else "emptied"
            again = f"names {pointer.to.path} only by operation {pointer.number + 1}"
            return f"{pointer.path} is not replaced at once: it is {how} by operation {pointer.begun + 1}, and {again}."
    return ""


def _unfinished(known: Sequence[Publication], done: int) -> str:
    """Say what has its name and is not whole when so many operations have begun; empty where nothing is."""
    for one in known:
        if one.first < done <= one.last:
            how = "is copied to its name" if one.way == "copied" else "has its name"
            return f" {one.path} {how} from operation {one.first + 1} on, and is whole after operation {one.last + 1}."
    return ""


def why_gone(scene: CrashScene, run: RunRecord, advisor: Advisor, *, removed: bool) -> str:
    """Say which operation destroyed what had been saved, and after which one the next is whole."""
    over = "the new checkpoint is written over the old one"
    general = "the old checkpoint is deleted before the new one is whole" if removed else over
    trace = run.trace
    assert trace is not None  # noqa: S101 - the contract has looked
    found = publications(run, advisor)
    old = [one for one in found if one.saved.step == scene.had and one.last < trace.states[scene.number].until]
    number = _first_loss(old[-1], scene, trace) if old else None
    if number is None:
        return f"{general}."
    what = f"operation {number + 1} ({trace.operations[number].text}) takes step {scene.had}"
    following = next((one for one in found if one.last > number), None)
    if following is None:
        return f"{general}: {what}, and nothing is whole after it."
    return f"{general}: {what}, and {following.path} is whole after operation {following.last + 1}."


def _first_loss(old: Publication, scene: CrashScene, trace: Trace) -> int | None:
    """Return the number of the first operation after which something of a checkpoint is not there any more as it was."""
    names = {entry.path for entry in old.saved.entries}
    later = range(old.last + 1, trace.states[scene.number].until)
    return next((number for number in later if _changes_one_of(trace.operations[number], names)), None)


def _changes_one_of(operation: Operation, names: Collection[str]) -> bool:
    return (
        operation.changes
        and operation.kind not in {"times", "mkdir"}
        and (operation.path in names or operation.target in names)
    )
