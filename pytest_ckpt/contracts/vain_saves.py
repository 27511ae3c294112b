"""Saves in the background that were begun and came to nothing, though no undisturbed run need have come further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.background import held_back
from pytest_ckpt.contracts.completeness import open_number
from pytest_ckpt.contracts.leftovers import is_temporary
from pytest_ckpt.contracts.save_calls import is_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.contracts.slowly_saved import SlowlySaved
    from pytest_ckpt.records.run import RunRecord

_TAKES_AWAY: Final = frozenset({"rename", "exchange", "link", "unlink", "rmdir", "depart"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VainSave:
    """A file that was to be written.

    Attributes:
        step: how many steps were done when it was begun; None where that was not seen.
        lack: what there is of it in the end.
    """

    path: str
    step: int | None
    lack: str


def in_vain(slow: RunRecord, traced: RunRecord, saved: Sequence[SlowlySaved]) -> tuple[VainSave, ...]:
    """Return the saves that were not finished on the slow disk, those of checkpoints that an undisturbed run has left out."""
    known = {name for one in saved for name in one.names}
    alike = {open_number(name) for name in known}
    begun = {**_abandoned(slow), **_begun(slow, traced)}
    new = [path for path in begun if path not in known and (is_temporary(path) or open_number(path) in alike)]
    lacks = {path: _lack(path, slow) for path in new}
    return tuple(VainSave(path=path, step=begun[path], lack=lack) for path, lack in lacks.items() if lack)


def _abandoned(slow: RunRecord) -> dict[str, int | None]:
    """Return the files in the midst of which the job ended."""
    operations = slow.trace.abandoned if slow.trace is not None else ()
    return {one.path: None for one in operations if one.path and one.changes}


def _begun(slow: RunRecord, traced: RunRecord) -> dict[str, int | None]:
    """Return what threads and processes began to write, as far as it is no other name of a file that lies elsewhere."""
    usual = {one.path for one in held_back(traced)}
    found: dict[str, int | None] = {
        one.path: None for one in held_back(slow) if one.kind == "open" and one.path and is_temporary(one.path)
    }
    for save in slow.saves:
        if not save.in_main_thread and save.by != "open" and (save.path in usual or save.path in found):
            found[save.path] = save.step
    return found


def _lack(path: str, slow: RunRecord) -> str:
    """Say what is missing of a file that nobody has removed, or given another name."""
    operations = slow.trace.operations if slow.trace is not None else ()
    if any(one.kind in _TAKES_AWAY and is_below(path, one.path) for one in operations):
        return ""
    entry = slow.left.get(path)
    if entry is None:
        return "is not there"
    problems = [one.problem for one in slow.kept if one.problem.startswith(f"{path}: ")]
    if not entry.size or problems:
        return f"has {entry.size} bytes"
    return "has its temporary name" if is_temporary(path) else ""
