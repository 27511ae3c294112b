"""What of a job's output announces that a model is saved, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.said import CALLBACK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.said import Said
    from pytest_ckpt.records.tree import Entry

_BEGINS: Final = re.compile(r"\b(saving|writing|exporting|dumping)\b", re.IGNORECASE)
_IS_DONE: Final = re.compile(r"\b(saved|wrote|written|exported|dumped)\b", re.IGNORECASE)
_MODEL: Final = re.compile(r"(?<![a-z])(model|checkpoint|ckpt|weight|adapter|snapshot)s?(?![a-z])", re.IGNORECASE)
#: Lines with one of these tell of something else: of loading, of a plan, of what is not done, of what is no directory.
_OTHER: Final = re.compile(
    r"\b(load\w*|restore\w*|restoring|resum\w*|read\w*|found|using|delete\w*|deleting|remov\w*|clean\w*|will|would|should|can|could|may|"
    r"not|no|never|cannot|fail\w*|error|skip\w*|only|every|each|interval|strategy|disabled?|enabled?|if|when|whenever|until|"
    r"hub|s3|gcs|wandb|mlflow|artifacts?|upload\w*|push\w*|memory|cpu|gpu)\b|n't\b|://",
    re.IGNORECASE,
)
_TENSORS: Final = "pt|pth|ckpt|bin|safetensors|npz|pkl|tar|distcp|h5|msgpack|onnx|gguf"
#: What is written like a path: in quotes, from the root, or with the ending of a file that holds tensors.
_PATH: Final = re.compile(
    rf"""(?<!\w)(?P<quote>['"`])(?P<quoted>[^\s'"`][^'"`]*[/.][^'"`]*)(?P=quote)|(?P<absolute>(?<![\w./])/[^\s'"`,;]+)"""
    rf"""|(?P<file>[^\s'"`,;:(\[]+\.(?:{_TENSORS})\b)""",
    re.IGNORECASE,
)
#: Where a path may stand that is written like any word.
_PLACE: Final = re.compile(r"\b(?:to|in|into|at|under)[:\s]\s*['\"`]?(?P<path>[\w./-]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A save of a model that a job announces.

    Attributes:
        said: the words, and after which step.
        begins: whether they tell of something that goes on, not of something done.
        path: of what is saved, as it was said; empty where none was.
        number: of the step, as it was said; None where none was asked for.
    """

    said: Said
    begins: bool
    path: str = ""
    number: int | None = None


def announcements(run: RunRecord, pattern: re.Pattern[str] | None = None) -> Iterator[Announcement]:
    """Yield what a run announced: by the lines that fit the pattern, or by those that read like it, and by its framework.

    Args:
        pattern: may name groups `path` and `step`.
    """
    for said in run.said:
        if said.source == CALLBACK:
            yield Announcement(said, begins=False)
        elif pattern is not None:
            yield from _by(pattern, said)
        else:
            yield from _by_words(said, run)


def _by(pattern: re.Pattern[str], said: Said) -> Iterator[Announcement]:
    for match in pattern.finditer(said.text):
        groups = match.groupdict()
        number = groups.get("step")
        begins = _IS_DONE.search(said.text) is None
        yield Announcement(said, begins, groups.get("path") or "", int(number) if number else None)


def _by_words(said: Said, run: RunRecord) -> Iterator[Announcement]:
    """Yield what a line announces in the words that savers commonly use."""
    begins = _BEGINS.search(said.text) is not None
    if not (begins or _IS_DONE.search(said.text)) or not _MODEL.search(said.text):
        return
    paths = list(_paths(said.text, run))
    rest = said.text
    for path in paths:
        rest = rest.replace(path, "")
    if _OTHER.search(rest):
        return
    for path in paths:
        yield Announcement(said, begins, path)
    if not paths and said.step > 0:
        yield Announcement(said, begins)


def _paths(text: str, run: RunRecord) -> Iterable[str]:
    """Return the paths in a line: what is written like one, or else what stands where one would and is there."""
    written = [
        next(filter(None, (match["quoted"], match["absolute"], match["file"]))) for match in _PATH.finditer(text)
    ]
    if not written:
        words = [match["path"] for match in _PLACE.finditer(text)]
        written = [word for word in words if any(names(word, entry.path, run) for entry in _everything(run))]
    return dict.fromkeys(path.rstrip(".:)]") for path in written)


def _everything(run: RunRecord) -> Iterable[Entry]:
    return {entry.path: entry for look in run.looks for entry in look.tree.entries}.values()


def lies_outside(path: str, run: RunRecord) -> bool:
    """Say whether a path that was said is not in the job's directory; a relative one may count from anywhere."""
    return path.startswith("/") and f"{path.rstrip('/')}/".startswith(f"{run.directory}/") is False


def names(path: str, seen: str, run: RunRecord) -> bool:
    """Say whether a path that was said means what was seen under that path in the job's directory, or a folder around it."""
    if path.startswith("/"):
        return not lies_outside(path, run) and f"{run.directory}/{seen}/".startswith(f"{path.rstrip('/')}/")
    said = f"/{path.removeprefix('./').rstrip('/')}/"
    return said in f"/{seen}/" or said.endswith(f"/{seen}/")
