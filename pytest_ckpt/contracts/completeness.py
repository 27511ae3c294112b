"""The contract that what is kept is whole: every file is there, every file parses, nothing unfinished lies about."""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Final

from pytest_ckpt.contracts.base import OfBaseline
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import checkpoints_text, no_steps, some_of
from pytest_ckpt.contracts.leftovers import is_temporary, leftovers
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor, Contract, Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

_NUMBER: Final = re.compile(r"\d+")
_SHARD: Final = re.compile(r"^(?P<stem>.*?)(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\.\w+)$")
#: How many others must have a file before one that lacks it is thought to be incomplete.
_SIBLINGS: Final = 2


@dataclass(frozen=True)
class Complete(OfBaseline):
    """Each checkpoint that is kept has all its files, every file parses, and no unfinished one is left in the end."""

    name: ClassVar[str] = "complete"

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it."""
        return cls()

    def judge(self, evidence: Evidence) -> Verdict:
        """Look at the checkpoints of this run that remain, and at what else remains."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        kept = [checkpoint for checkpoint in run.kept if not checkpoint.foreign]
        findings = [finding for checkpoint in kept for finding in _wrong(checkpoint, run, evidence.advisor)]
        findings += _unfinished(run)
        if findings:
            return violated(self.name, *findings)
        if not kept:
            return inconclusive(self.name, _nothing_kept(run) if run.written else nothing_saved(run))
        files = sum(len(checkpoint.files) for checkpoint in kept)
        parse = "its file parses" if files == 1 else f"all {files} files are there and parse"
        return held(self.name, f"{checkpoints_text(len(kept))} whole: {parse}")


def is_whole(checkpoint: Checkpoint, run: RunRecord, advisor: Advisor) -> bool:
    """Say whether a checkpoint has all its files, and nothing that marks it as unfinished."""
    return not any(_wrong(checkpoint, run, advisor)) and not any(map(is_temporary, checkpoint.files))


def _wrong(checkpoint: Checkpoint, run: RunRecord, advisor: Advisor) -> Iterator[Finding]:
    """Yield what is wrong with one checkpoint."""
    if checkpoint.problem:
        yield _damaged(checkpoint, run)
    names = _names(checkpoint)
    required = advisor.required_files(checkpoint)
    absent = [name for name in required if not any(fnmatch.fnmatchcase(own, name) for own in names)]
    if absent:
        yield _missing(checkpoint, absent, run, "the framework writes it with these settings", advisor)
    shards = _missing_shards(names)
    if shards:
        yield _missing(checkpoint, shards, run, "the names of the other parts count it", advisor)
    if not required and (usual := _usual_names(checkpoint, run)):
        others = f"all {usual[1]} other checkpoints of this run have it"
        yield _missing(checkpoint, usual[0], run, others, advisor)


def _names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return its files relative to it; a checkpoint that is a file is known by its own name."""
    folder = PurePosixPath(checkpoint.path).parent
    return tuple(
        path.removeprefix(f"{checkpoint.path}/")
        if path.startswith(f"{checkpoint.path}/")
        else PurePosixPath(path).relative_to(folder).as_posix()
        if PurePosixPath(path).is_relative_to(folder)
        else path
        for path in checkpoint.files
    )


def _missing_shards(names: Iterable[str]) -> list[str]:
    """Return the parts of a whole that are not there, by the names of those that are, such as `00001-of-00003`."""
    found: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for name in names:
        if match := _SHARD.match(name):
            found[match["stem"], match["count"], match["suffix"]].add(int(match["number"]))
    missing = []
    for (stem, count, suffix), numbers in found.items():
        wanted = range(min(numbers) and 1, int(count) + (1 if min(numbers) else 0))
        missing += [f"{stem}{number:0{len(count)}}-of-{count}{suffix}" for number in wanted if number not in numbers]
    return missing


def _usual_names(checkpoint: Checkpoint, run: RunRecord) -> tuple[list[str], int] | None:
    """Return the files that all its siblings have and it lacks, and how many siblings it has."""
    siblings = [other for other in run.written if other is not checkpoint and family(other) == family(checkpoint)]
    if len(siblings) < _SIBLINGS:
        return None
    usual = set.intersection(*(set(map(open_number, _names(other))) for other in siblings))
    missing = sorted(usual - set(map(open_number, _names(checkpoint))))
    return (missing, len(siblings)) if missing else None


def family(checkpoint: Checkpoint) -> str:
    """Return the name that a checkpoint shares with those that are saved like it, their numbers left open."""
    return open_number(checkpoint.path)


def open_number(name: str) -> str:
    """Return a name in which all numbers are alike."""
    return _NUMBER.sub("N", name)


def _damaged(checkpoint: Checkpoint, run: RunRecord) -> Finding:
    return Finding(
        title=f"{checkpoint.path} is damaged: {checkpoint.problem}",
        cause="the file was cut short or overwritten, or its writer did not finish: the disk was full, or the process ended.",
        fix="write to another name, flush, and rename when the file is whole; wait for writers before the process ends.",
        step=run.step_of(checkpoint),
        component="files",
        checkpoint=checkpoint.identity,
    )


def _missing(checkpoint: Checkpoint, absent: Sequence[str], run: RunRecord, why: str, advisor: Advisor) -> Finding:
    advice = advisor.component("files", checkpoint)
    files = "file is" if len(absent) == 1 else "files are"
    return Finding(
        title=f"{checkpoint.path} is incomplete: {len(absent)} {files} missing, {some_of(absent)}",
        rows=(("has", some_of(sorted(_names(checkpoint)), most=12)), ("missing", ", ".join(absent)), ("because", why)),
        cause=advice.cause or "the file was not written, or removed again, or saving it failed and went on.",
        fix=advice.fix or "find out what removes or skips it, and save the whole checkpoint.",
        step=run.step_of(checkpoint),
        component="files",
        checkpoint=checkpoint.identity,
    )


def _unfinished(run: RunRecord) -> Iterator[Finding]:
    left = leftovers(run)
    if left:
        were = (
            "1 unfinished file or directory is"
            if len(left) == 1
            else f"{len(left)} unfinished files or directories are"
        )
        yield Finding(
            title=f"{were} left in the end: {some_of(left)}",
            cause="it was written under a temporary name and never renamed, or a save stopped before its end.",
            fix="rename or remove it when the save is done, also when it fails; wait for all saves before the process ends.",
            component="files",
        )


def _nothing_kept(run: RunRecord) -> Finding:
    return Finding(
        title=f"none of the {checkpoints_text(len(run.written))} of this run is left on disk",
        cause="all of them were deleted again.",
        fix="keep at least one; ckpt_retention says which one should have stayed.",
    )
