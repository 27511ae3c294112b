"""Telling a step that was saved twice from a copy beside a checkpoint and from one that took long to write."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.base import successive
from pytest_ckpt.contracts.shelf import final_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

_NUMBER: Final = re.compile(r"\d+")
#: What is appended to a name that is taken already.
_VERSION: Final = re.compile(r"-v\d+(?=\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A step that was saved more than once.

    Attributes:
        paths: where; a single one was written over again.
        times: how often.
        checkpoint: identity of the one that was written last.
    """

    step: int
    paths: tuple[str, ...]
    times: int
    checkpoint: str


def repeated(run: RunRecord, counted: Collection[str]) -> Iterator[Repeated]:
    """Yield the steps that were saved twice in checkpoints of these identities."""
    chosen = [checkpoint for checkpoint in run.checkpoints if checkpoint.identity in counted]
    yield from _written_over(run, chosen)
    alike: dict[tuple[str, int], list[Checkpoint]] = defaultdict(list)
    for checkpoint in successive(run):
        if checkpoint.identity in counted and _is_whole(checkpoint):
            alike[_family(checkpoint.path), run.step_of(checkpoint)].append(checkpoint)
    for (_, step), checkpoints in alike.items():
        paths = tuple(dict.fromkeys(checkpoint.path for checkpoint in checkpoints))
        if len(paths) > 1:
            yield Repeated(step=step, paths=paths, times=len(paths), checkpoint=checkpoints[-1].identity)


def _written_over(run: RunRecord, checkpoints: list[Checkpoint]) -> Iterator[Repeated]:
    """Yield the steps after which a file of tensors was written, and written again from its beginning."""
    owner = {path: checkpoint for checkpoint in checkpoints for path in checkpoint.files}
    announced: Counter[tuple[str, int]] = Counter()
    opened: Counter[tuple[str, int]] = Counter()
    for save in run.saves:
        if save.in_main_thread:
            (opened if save.by == "open" else announced)[final_name(save.path), save.step] += 1
    found: dict[tuple[str, int], Repeated] = {}
    for (path, step), saves in announced.items():
        times = opened[path, step] or saves  # several objects may be saved into one open file
        if times > 1 and path in owner:
            one = owner[path]
            found[one.path, step] = Repeated(step=step, paths=(one.path,), times=times, checkpoint=one.identity)
    yield from found.values()


def _family(path: str) -> str:
    """Return a path with the numbers in its name left open."""
    place = PurePosixPath(path)
    return str(place.with_name(_NUMBER.sub("#", _VERSION.sub("", place.name))))


def _is_whole(checkpoint: Checkpoint) -> bool:
    """Say whether it holds all that is trained; a shard of it, or one of several models, does not."""
    content = checkpoint.content
    return content is not None and bool(content.steps) and content.matched == content.expected
