"""The contract that what a job announces to save is there."""

from __future__ import annotations

import re
from dataclasses import KW_ONLY, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Final

from pytest_ckpt.contracts.announcements import announcements, lies_outside, names
from pytest_ckpt.contracts.base import Evidence, OfBaseline, OfSchedule, OnRequest
from pytest_ckpt.contracts.completeness import is_whole
from pytest_ckpt.contracts.explain_logging import incomplete, nothing_announced, nowhere, only_outside
from pytest_ckpt.contracts.explain_saving import no_steps
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.tree import Tree
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.contracts.announcements import Announcement
    from pytest_ckpt.records.run import RunRecord

#: Files that hold no model, whatever is said of them.
_TEXTS: Final = frozenset(
    {
        ".json",
        ".jsonl",
        ".txt",
        ".md",
        ".yaml",
        ".yml",
        ".csv",
        ".tsv",
        ".log",
        ".html",
        ".png",
        ".lock",
        ".py",
        ".toml",
    }
)
#: How many announcements are told of one by one.
_TOLD: Final = 3


@dataclass(frozen=True)
class Logged(OnRequest, OfBaseline, OfSchedule):
    """Each save that the job announces, in its output or by its framework, is made, and what is kept of it is whole.

    `pattern` is a regular expression of the lines that announce one, which may have groups `path` and `step`.
    """

    name: ClassVar[str] = "logged"
    _: KW_ONLY
    pattern: str | None = None

    def __post_init__(self) -> None:
        given: object = self.pattern
        if given is None:
            return
        try:
            re.compile(self.pattern or "")
        except (re.error, TypeError) as error:
            message = f"pattern must be a regular expression of lines that announce a save; got {given!r}: {error}"
            raise InvalidArgument(message) from None
        if not given:
            message = "pattern must be a regular expression of lines that announce a save; got an empty one"
            raise InvalidArgument(message)

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare what was said with what was written."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        pattern = re.compile(self.pattern) if self.pattern else None
        announced = list(_distinct(announcements(run, pattern)))
        known = [one for one in announced if not _is_elsewhere(one, run)]
        if not known:
            return inconclusive(self.name, only_outside(announced) if announced else nothing_announced(self.pattern))
        findings = [finding for one in known for finding in _wrong(one, evidence)]
        if findings:
            return violated(self.name, *findings[:_TOLD])
        return held(self.name, _sentence(len(known)))


def _distinct(announced: Iterable[Announcement]) -> Iterator[Announcement]:
    """Yield each announcement once: what is logged often stands in several outputs."""
    seen = set()
    for one in announced:
        key = (one.said.step, one.begins, one.path, one.number)
        if key not in seen:
            seen.add(key)
            yield one


def _is_elsewhere(one: Announcement, run: RunRecord) -> bool:
    """Say whether it lies where nobody has looked; what torch saved there was seen."""
    return lies_outside(one.path, run) and not any(f"{path}/".startswith(f"{one.path}/") for path in run.strays)


def _wrong(one: Announcement, evidence: Evidence) -> Iterator[Finding]:
    """Yield what is wrong with one announcement."""
    run = evidence.baseline
    if lies_outside(one.path, run):
        return
    if not _is_there(one, run):
        yield nowhere(one, run)
        return
    kept = [checkpoint for checkpoint in run.kept if one.path and names(one.path, checkpoint.path, run)]
    for checkpoint in kept:
        if not checkpoint.foreign and not is_whole(checkpoint, run, evidence.advisor):
            yield incomplete(one, checkpoint, run)


def _is_there(one: Announcement, run: RunRecord) -> bool:
    """Say whether what is announced was written; what is being saved, or what a framework told, in this very step or later."""
    if one.number is not None:
        steps = {run.step_of(checkpoint) for checkpoint in run.written} | {one.claimed for one in run.written}
        return one.number in steps
    now = one.begins or not one.said.text
    return any(_holds(one, path, run) for path in _written_since(one.said.step if now else 0, run))


def _holds(one: Announcement, path: str, run: RunRecord) -> bool:
    """Say whether a file that was written may be the one announced."""
    if one.path and not names(one.path, path, run):
        return False
    return PurePosixPath(path).suffix not in _TEXTS or PurePosixPath(one.path).suffix in _TEXTS


def _written_since(step: int, run: RunRecord) -> Iterator[str]:
    """Yield what was written after so many steps: what was seen to be opened, or is new or different in the directory."""
    frameworks = {facts.name for facts in run.frameworks}  # they tell what they are about to do
    yield from (save.path for save in run.saves if save.step >= step and save.by not in frameworks)
    before = [look for number, look in enumerate(run.looks) if look.step < step or number == 0]
    old = {entry.path: entry for entry in (before[-1].tree if before else Tree()).entries}
    for look in run.looks:
        if look.step >= step:
            yield from (
                entry.path for entry in look.tree.entries if entry.kind != "dir" and entry != old.get(entry.path)
            )


def _sentence(count: int) -> str:
    return f"{f'all {count} announced saves were' if count > 1 else 'the announced save was'} made, and what is kept is whole"
