"""From looks at a directory to the checkpoints in it: what they are called, when they came and went, what they hold."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from pytest_ckpt.checkpoints.content import identify
from pytest_ckpt.checkpoints.file_content import DamagedFile, FileContent, ReadError
from pytest_ckpt.checkpoints.file_sizes import file_sizes
from pytest_ckpt.checkpoints.grouping import Part, units_of
from pytest_ckpt.checkpoints.keys import refused, wrapped
from pytest_ckpt.checkpoints.units import Unit, number_in
from pytest_ckpt.records.checkpoint import Checkpoint

if TYPE_CHECKING:
    from pytest_ckpt.checkpoints.state_table import StateTable
    from pytest_ckpt.records.run import Look, SaveEvent
    from pytest_ckpt.records.tree import Entry

#: Reads the stored content of a file.
Reader: TypeAlias = Callable[["Entry"], FileContent | ReadError]


@dataclass(slots=True)
class _Version:
    """One content under a unit's path, while the looks are gone through."""

    unit: Unit
    look: int
    settled: int
    entries: tuple[Entry, ...]
    saved_after: int
    gone_after: int | None = None
    number: int = 1
    foreign: bool = False

    @property
    def contents(self) -> dict[str, str]:
        return {entry.path: entry.content for entry in self.entries}


def catalogue(  # noqa: PLR0913, PLR0917 - all that is known of a run's files
    looks: Sequence[Look],
    saves: Sequence[SaveEvent],
    known: Iterable[Unit],
    pattern: str | None,
    read: Reader,
    table: StateTable,
    *,
    of_rank: bool = False,
) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a run in the order in which they appeared.

    Args:
        looks: the directory over time; the first is what the run started from.
        saves: saves that were seen to begin.
        known: what the layouts of the frameworks recognise.
        pattern: what the job declared with `Job.layout`.
        read: reads a file content of the evidence store.
        table: the states that were seen.
        of_rank: whether the looks and saves are those of one of several ranks; others may begin to save a step before it.
    """
    units = list(known)
    if pattern is not None:
        units += _declared(looks, pattern, units)
    else:
        announced = {save.path for save in saves if save.by != "open"}
        units += units_of(looks, lambda entry: _part_of(entry, read, table, announced), units)
    versions = sorted(
        (v for unit in units for v in _versions(unit, looks, saves, read, of_rank=of_rank)),
        key=lambda v: (v.look, v.unit.path),
    )
    found = (_describe(version, saves, read, table) for version in versions)
    return tuple(checkpoint for checkpoint in found if _counts(checkpoint, pattern))


def _declared(looks: Sequence[Look], pattern: str, known: Sequence[Unit]) -> list[Unit]:
    paths = {entry.path: None for look in looks for entry in look.tree.entries if entry.kind != "link"}
    taken = {unit.path for unit in known}
    return [number_in(path) for path in paths if _matches(path, pattern) and path not in taken]


def _matches(path: str, pattern: str) -> bool:
    """Say whether a glob names the path; as in a shell, `*` stays within one folder."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def _part_of(entry: Entry, read: Reader, table: StateTable, announced: AbstractSet[str]) -> Part | None:
    """Say what part of the training state a file holds; one that is damaged counts if tensors were to be saved in it."""
    content = read(entry)
    if isinstance(content, FileContent):
        return _part(content, table)
    return "weights" if isinstance(content, DamagedFile) and entry.path in announced else None


def _part(content: FileContent, table: StateTable) -> Part | None:
    """Say what part of the training state a file holds: the model, something else of it, or nothing."""
    hits = {hit.kind for entry in content.tensors if table.knows(entry) for hit in table.hits[entry.digest]}
    named = sum(table.names(entry) for entry in content.tensors)
    if hits & {"weights", "ema"} or (table.trained and named >= len(table.trained)):
        return "weights"
    return "other" if content.has_optimizer or hits else None


def _versions(
    unit: Unit, looks: Sequence[Look], saves: Sequence[SaveEvent], read: Reader, *, of_rank: bool
) -> list[_Version]:
    """Follow one path through the looks."""
    versions: list[_Version] = []
    current: _Version | None = None
    for index, look in enumerate(looks):
        entries = unit.entries(look.tree)
        if not entries:
            if current is not None:
                current.gone_after, current = look.step, None
        elif current is None or (
            not (of_rank and look.step == current.saved_after + 1 and _is_early(current, saves))
            and _is_other(current, entries, looks[:index], saves, read)
        ):
            if current is not None:
                current.gone_after = look.step
            current = _Version(unit, index, index, entries, look.step, number=len(versions) + 1, foreign=index == 0)
            versions.append(current)
        elif {entry.path: entry.content for entry in entries} != current.contents:
            current.settled, current.entries = index, entries
    if of_rank:
        _put_right(versions, saves)
    return versions


def _is_early(version: _Version, saves: Sequence[SaveEvent]) -> bool:
    """Say whether the rank that is looked at begins to save something only in the step after it was first seen.

    What that rank does not save itself belongs to what it saves in the same step.
    """
    own = {save.step for save in saves if _is_part(version.unit, save.path)}
    steps = own or {save.step for save in saves if save.by != "open"}
    return not version.foreign and version.saved_after not in steps and version.saved_after + 1 in steps


def _put_right(versions: Sequence[_Version], saves: Sequence[SaveEvent]) -> None:
    """Have what another rank began a step early saved when the rank that is looked at does, and what it replaces gone then."""
    for before, version in zip((None, *versions), versions, strict=False):
        if _is_early(version, saves):
            if before is not None and before.gone_after == version.saved_after:
                before.gone_after += 1
            version.saved_after += 1


def _is_other(
    current: _Version, entries: Sequence[Entry], looks: Sequence[Look], saves: Sequence[SaveEvent], read: Reader
) -> bool:
    """Say whether the content was replaced, rather than still being written at the looks before."""
    now = {entry.path: entry.content for entry in entries}
    if all(now.get(path) == content for path, content in current.contents.items()):
        return False
    if current.foreign:
        return True  # nobody was writing it when the run began
    since = looks[current.settled :]
    unit = current.unit
    if any(save.in_main_thread and save.step > since[0].step and _is_part(unit, save.path) for save in saves):
        return True
    unfinished = any(isinstance(read(entry), DamagedFile) for entry in current.entries)
    if unfinished or any(_is_part(unit, path) for path in since[-1].writing):
        return False
    return len(since) > 1 or since[0].at_rest


def _is_part(unit: Unit, path: str) -> bool:
    return any(path == own or path.startswith(own + "/") for own in (unit.path, *unit.others))


def _in_main_thread(version: _Version, saves: Sequence[SaveEvent]) -> bool | None:
    """Say which thread wrote it; None if no save of it was seen to begin."""
    threads = [
        save.in_main_thread
        for save in saves
        if save.step <= version.saved_after and _is_part(version.unit, save.path) and save.by != "open"
    ] or [
        save.in_main_thread for save in saves if save.step <= version.saved_after and _is_part(version.unit, save.path)
    ]
    return threads[-1] if threads else None


def _begun_after(version: _Version, saves: Sequence[SaveEvent]) -> int | None:
    """Return how many steps were done when its tensors were last seen to begin being saved."""
    mine = [save for save in saves if save.by != "open" and _is_part(version.unit, save.path)]
    return max((save.step for save in mine if save.step <= version.saved_after), default=None)


def _describe(version: _Version, saves: Sequence[SaveEvent], read: Reader, table: StateTable) -> Checkpoint:
    contents, problem = _read_all(version.entries, read)
    content = identify(contents, table, version.saved_after) if contents else None
    checkpoint = Checkpoint(
        path=version.unit.path,
        version=version.number,
        claimed=version.unit.claimed,
        claim_is_step=version.unit.claim_is_step,
        saved_after=version.saved_after,
        look=version.look,
        settled=version.settled,
        kept=version.gone_after is None,
        gone_after=version.gone_after,
        foreign=version.foreign,
        in_main_thread=_in_main_thread(version, saves) is True,
        begun_after=_begun_after(version, saves),
        content=content,
        problem=problem,
        size=sum(entry.size for entry in version.entries),
        files=tuple(entry.path for entry in version.entries),
        others=version.unit.others,
        sizes=file_sizes(
            {entry.path: (contents[entry.path], entry.size) for entry in version.entries if entry.path in contents},
            table,
        ),
        tensors={f"{path}:{one.key}": one.digest for path, found in contents.items() for one in found.tensors},
        wrapped=wrapped(contents, table),
        refused={path: names for path, content in contents.items() if (names := refused(content))},
    )
    return replace(checkpoint, kind=_kind(contents.values(), table))


def _read_all(entries: Iterable[Entry], read: Reader) -> tuple[dict[str, FileContent], str]:
    contents: dict[str, FileContent] = {}
    problem = ""
    for entry in entries:
        content = read(entry)
        if isinstance(content, FileContent):
            contents[entry.path] = content
        elif isinstance(content, DamagedFile) and not problem:
            problem = f"{entry.path}: {content.problem}"
    return contents, problem


def _kind(contents: Iterable[FileContent], table: StateTable) -> Literal["full", "weights", "unknown"]:
    contents = list(contents)
    if any(content.has_optimizer for content in contents):
        return "full"
    return "weights" if any(_part(content, table) == "weights" for content in contents) else "unknown"


def _counts(checkpoint: Checkpoint, pattern: str | None) -> bool:
    """Leave out what only looks like a checkpoint: a unit found by its content that holds nothing of the model."""
    sure = checkpoint.claim_is_step or pattern is not None or checkpoint.foreign
    return sure or checkpoint.kind != "unknown" or bool(checkpoint.problem)
