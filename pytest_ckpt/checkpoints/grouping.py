"""Which files belong together to one checkpoint, where no framework's layout says so."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeAlias

from pytest_ckpt.checkpoints.units import Unit, number_in, numbers_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_ckpt.records.run import Look
    from pytest_ckpt.records.tree import Entry

#: What a file holds: the model's weights, or other training state.
Part: TypeAlias = Literal["weights", "other"]


def units_of(looks: Sequence[Look], part_of: Callable[[Entry], Part | None], known: Sequence[Unit]) -> list[Unit]:
    """Return the checkpoints that the files of training state in the looks form.

    A directory in which state files appear at two different looks is a place where checkpoints lie. Otherwise all that
    appeared below it belongs to one checkpoint: named by the topmost directory that bears a number, else by the directory
    if several state files lie in it, else by the file. State without weights belongs to the weights file that appeared
    beside it under the same numbers.
    """
    files = _Appearances(looks, part_of, known)
    units: dict[str, int] = {}
    for path, look in files.look_of.items():
        units.setdefault(files.unit_path(path), look)
    return [number_in(main, others) for main, others in _side_by_side(units, files.part)]


class _Appearances:
    """Files of training state, by the look at which each was first seen."""

    def __init__(self, looks: Sequence[Look], part_of: Callable[[Entry], Part | None], known: Sequence[Unit]) -> None:
        self.look_of: dict[str, int] = {}
        self.part: dict[str, Part] = {}
        for index, look in enumerate(looks):
            for entry in look.tree.entries:
                if entry.kind == "file" and entry.path not in self.look_of and not _is_known(entry.path, known):
                    part = part_of(entry)
                    if part is not None:
                        self.look_of[entry.path] = index
                        self.part[entry.path] = part
        self._places = self._find_places()

    def _find_places(self) -> set[str]:
        """Return the directories in which checkpoints come to lie over time."""
        looks: dict[str, set[int]] = defaultdict(set)
        for path, index in self.look_of.items():
            for parent in PurePosixPath(path).parents:
                looks[str(parent)].add(index)
        return {"."} | {folder for folder, indices in looks.items() if len(indices) > 1}

    def unit_path(self, path: str) -> str:
        """Return the directory or file that a state file's checkpoint is named by."""
        folders = [str(parent) for parent in reversed(PurePosixPath(path).parents) if str(parent) not in self._places]
        for folder in folders:
            if numbers_in(folder):
                return folder
        if folders and sum(other.startswith(folders[-1] + "/") for other in self.look_of) > 1:
            return folders[-1]
        return path


def _is_known(path: str, known: Sequence[Unit]) -> bool:
    return any(path == unit.path or path.startswith(unit.path + "/") for unit in known)


def _side_by_side(units: dict[str, int], part: dict[str, Part]) -> list[tuple[str, tuple[str, ...]]]:
    """Join files that appeared together in one directory under the same numbers, if one of them has the weights."""
    neighbours: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for path, look in units.items():
        neighbours[look, str(PurePosixPath(path).parent), numbers_in(path)].append(path)
    joined: list[tuple[str, tuple[str, ...]]] = []
    for paths in neighbours.values():
        others = tuple(path for path in paths if part.get(path) == "other")
        mains = [path for path in paths if path not in others]
        if len(mains) == 1 and part.get(mains[0]) == "weights":
            joined.append((mains[0], others))
        else:
            joined.extend((path, ()) for path in paths)
    return joined
