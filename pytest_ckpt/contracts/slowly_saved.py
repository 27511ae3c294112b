"""A checkpoint that an undisturbed run has kept, and what became of it where the disk was slow in the background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.background import names_of, operations_on, writers
from pytest_ckpt.contracts.completeness import is_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord, SaveEvent
    from pytest_ckpt.records.tree import Entry

#: Below which part of its usual size a file is cut; compressed ones vary.
_TOO_SMALL: Final = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowlySaved:
    """One checkpoint in three runs.

    Attributes:
        usual: as an undisturbed run has it in the end.
        again: as the other undisturbed run has it; None if it has it not in the end.
        slow: what has its name in the end of the run with a slow disk; None if that is no checkpoint.
        now: the digests of all tensors that are there in the end of that run, by `file:key`.
        runs: the undisturbed one, the other one, and the one with a slow disk.
    """

    usual: Checkpoint
    again: Checkpoint | None
    slow: Checkpoint | None
    now: Mapping[str, str]
    runs: tuple[RunRecord, RunRecord, RunRecord]

    # -- whether it is there -------------------------------------------------------------------------------------------

    @property
    def missing(self) -> dict[str, str]:
        """The files that are not there whole in the end, each with what there is of it."""
        return {path: text for path in self.usual.files if (text := self._lack(path))}

    def _lack(self, path: str) -> str:
        usual, now = _usual_entry(self.usual, self.runs[0], path), self.runs[2].left.get(path)
        if now is None:
            return "is not there"
        cut = usual is not None and now.size < usual.size * _TOO_SMALL
        return f"has {now.size} of {usual.size} bytes" if cut and usual is not None else ""

    @property
    def has_begun(self) -> bool:
        """Whether anything of it was written on the slow disk, or begun to be saved."""
        slow = self.runs[2]
        return any(operations_on(self.usual, slow)) or any(save.path in self.names for save in slow.saves)

    @property
    def by_process(self) -> bool:
        """Whether another process writes it, and not a thread."""
        return any(one.thread == one.process for run in self.runs for one in writers(self.usual, run))

    # -- what it holds -------------------------------------------------------------------------------------------------

    @property
    def asked(self) -> int:
        """The step after which it was asked for: the earliest that its content or the begin of its save points to."""
        held = [one.held_step for one in (self.usual, self.again) if one is not None]
        begun = [] if self._is_overwritten else [self._begun(run) for run in self.runs]
        claimed = [self.runs[0].step_of(self.usual)] if self.usual.claim_is_step else []
        return min((step for step in (*held, *begun, *claimed) if step is not None), default=self.usual.saved_after)

    @property
    def _is_overwritten(self) -> bool:
        """Whether several saves go to its name."""
        saves = [[(one.path, one.by) for one in self._saves(run)] for run in self.runs]
        return any(len(set(of_run)) < len(of_run) for of_run in saves)

    def _begun(self, run: RunRecord) -> int | None:
        return min((save.step for save in self._saves(run)), default=None)

    def _saves(self, run: RunRecord) -> list[SaveEvent]:
        """Return the saves of it that were seen to begin, also under a name that it had before."""
        names = self.names
        return [save for save in run.saves if save.by != "open" and save.path in names]

    @property
    def names(self) -> set[str]:
        """The paths of what belongs to it, those that it had while it was written included."""
        return {name for run in self.runs for name in names_of(self.usual, run)}

    @property
    def damage(self) -> str:
        """What is wrong with its files though all their bytes are there: they were changed as they were written."""
        own = set(self.usual.files)
        there = [one for one in _kept(self.runs[2]) if own.intersection(one.files)]
        problem = next((one.problem for one in there if one.problem.partition(": ")[0] in own), "")
        if there or not self.usual.tensors or all(path not in self._changed_files for path in self.usual.files):
            return problem
        return f"{self.usual.path}: nothing in it can be read, or recognised as state of this job"

    @property
    def _changed_files(self) -> set[str]:
        """The files that have other bytes than in the undisturbed run."""
        usual = {path: _usual_entry(self.usual, self.runs[0], path) for path in self.usual.files}
        return {path for path, entry in usual.items() if entry is not None and entry.content != self._digest(path)}

    @property
    def held(self) -> tuple[int, ...]:
        """The steps that the weights on the slow disk are of; none where they are of several, or of none that is known."""
        return () if self.slow is None or self.slow.content is None else self.slow.content.steps

    @property
    def is_late(self) -> bool:
        """Whether it holds a later step than it was asked for, or parts of several."""
        content = None if self.slow is None else self.slow.content
        if content is None:
            return False
        torn = content.is_mixture and not (self.usual.content is not None and self.usual.content.is_mixture)
        return torn or (bool(content.steps) and min(content.steps) > self.asked)

    @property
    def other_tensors(self) -> tuple[str, ...]:
        """The tensors that are other ones than in both undisturbed runs, by `file:key`."""
        return tuple(key for key, digest in self._certain.items() if key in self.now and self.now[key] != digest)

    @property
    def _certain(self) -> Mapping[str, str]:
        """The tensors that are the same whenever the job is run."""
        again = self.usual.tensors if self.again is None else self.again.tensors
        return {key: digest for key, digest in self.usual.tensors.items() if again.get(key) == digest}

    @property
    def other_files(self) -> tuple[str, ...]:
        """The files that are other ones than in both undisturbed runs; of use where no tensor can be read."""
        return tuple(path for path, now in self._certain_files() if now != self._digest(path))

    @property
    def is_comparable(self) -> bool:
        """Whether something in it can be compared."""
        return any(key in self.now for key in self._certain) or any(self._certain_files())

    def _certain_files(self) -> Iterator[tuple[str, str]]:
        if self.usual.tensors:
            return
        for path in self.usual.files:
            usual = _usual_entry(self.usual, self.runs[0], path)
            again = None if self.again is None else _usual_entry(self.again, self.runs[1], path)
            if usual is not None and (again is None or again.content == usual.content):
                yield path, usual.content

    def _digest(self, path: str) -> str:
        found = self.runs[2].left.get(path)
        return "" if found is None else found.content


def _usual_entry(checkpoint: Checkpoint, run: RunRecord, path: str) -> Entry | None:
    look = checkpoint.look if checkpoint.settled is None else checkpoint.settled
    return run.looks[look].tree.get(path)


def slowly_saved(baseline: RunRecord, traced: RunRecord, slow: RunRecord, advisor: Advisor) -> tuple[SlowlySaved, ...]:
    """Return the checkpoints that are there whole in the end of an undisturbed run, in the order of their steps.

    What only one of two undisturbed runs has a name for, such as one with the time in it, can't be found again.
    """
    found: dict[str, SlowlySaved] = {}
    now = {key: digest for one in _kept(slow) for key, digest in one.tensors.items()}
    for run, other in ((baseline, traced), (traced, baseline)):
        for checkpoint in _kept(run):
            known = checkpoint.path in other.left or any(one.path == checkpoint.path for one in other.checkpoints)
            if checkpoint.path in found or not known or not is_whole(checkpoint, run, advisor):
                continue
            again, slowly = _named(checkpoint.path, other), _named(checkpoint.path, slow)
            found[checkpoint.path] = SlowlySaved(
                usual=checkpoint, again=again, slow=slowly, now=now, runs=(run, other, slow)
            )
    return tuple(sorted(found.values(), key=lambda one: (one.asked, one.usual.look)))


def _kept(run: RunRecord) -> Iterator[Checkpoint]:
    return (one for one in run.kept if not one.foreign)


def _named(path: str, run: RunRecord) -> Checkpoint | None:
    return next((one for one in _kept(run) if one.path == path), None)
