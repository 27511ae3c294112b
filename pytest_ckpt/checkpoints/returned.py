"""Whether the model that training returns is in a file: something may have changed it after the last save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.file_content import ReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_ckpt.checkpoints.file_content import FileContent
    from pytest_ckpt.records.run import Look
    from pytest_ckpt.records.state import StateRecord, StepRecord
    from pytest_ckpt.records.tree import Entry


#: What a callback keeps for itself can be resumed from, and not be loaded as the model.
_OF_CALLBACKS: Final = "callbacks."


def unsaved_in_the_end(
    steps: Sequence[StepRecord],
    states: Sequence[StateRecord],
    looks: Sequence[Look],
    read: Callable[[Entry], FileContent | ReadError],
) -> tuple[str, ...]:
    """Return the trained parameters that had another value when training ended than after the last step, on disk nowhere.

    That training has ended is what a framework tells; without one nothing is returned. What ended before the last step was
    another training, such as a search for a learning rate.
    """
    ends = [state for state in states if state.when == "train_end" and steps and state.step == steps[-1].index]
    if not ends or not looks:
        return ()
    end, trained = ends[-1].readings, steps[-1].state.get("update", {})
    changed = {key: reading for key in trained if (reading := end.get(f"weights/{key}")) is not None}
    if not changed:
        return ()
    contents = (read(entry) for entry in looks[-1].tree.entries if entry.kind == "file")
    tensors = (entry for content in contents if not isinstance(content, ReadError) for entry in content.tensors)
    saved = {entry.digest for entry in tensors if not entry.key.startswith(_OF_CALLBACKS)}
    return tuple(key for key, reading in changed.items() if saved.isdisjoint({reading.digest, *reading.alike}))
