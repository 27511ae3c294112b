"""Saying what was not synced of what a power failure took, and in which order to sync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.save_calls import is_below

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.records.crash import CrashState, Trace
    from pytest_ckpt.records.operation import Operation

DURABLE: Final = (
    "flush and fsync each file before the rename, or the marker, that makes the checkpoint one, and fsync the directory after "
    "it; delete the old checkpoint only then."
)


def why_unsynced(trace: Trace, state: CrashState) -> str:
    """Say what was not done for the bytes, or names, that are lost."""
    begun = trace.operations[: state.operations]
    synced = [operation for operation in begun if operation.kind in {"sync", "sync_all"}]
    if state.lost.startswith("the changed names"):
        return "the directory was not synced after names in it had changed: they are as they were before."
    path = state.lost.rpartition(" of ")[2]
    own = _on(path, begun)
    written = [number for number in own if begun[number].kind == "write"]
    times = [number for number in own if begun[number].kind == "sync"]
    if not synced:
        return "no file is synced: what the kernel had not written back by itself is lost, and the names are there."
    if times and written and times[-1] < written[-1]:
        both = f"operations {times[-1] + 1} and {written[-1] + 1}"
        return f"{path} was synced before all its bytes had been written ({both}): they were still in a buffer of the program."
    if written and not times:
        last = f"written by operation {written[-1] + 1}"
        return f"{path}, {last}, is not synced before it gets its name, or before what replaces it goes."
    return "not all that was written is synced before it gets its name, or before what it replaces goes."


def _on(path: str, begun: Sequence[Operation]) -> list[int]:
    """Return the operations on a file since it was made, under whatever name; before that another one may have had it."""
    name, own = path, list[int]()
    for number, operation in reversed(list(enumerate(begun))):
        if operation.kind in {"rename", "link"} and is_below(name, operation.target):
            name = f"{operation.path or ''}{name.removeprefix(operation.target)}"
        elif operation.path == name:
            own.insert(0, number)
            if operation.kind == "unlink" or (operation.kind == "open" and (operation.empties or operation.exclusive)):
                break
    return own
