"""The contract on what is deleted again: not too little, not the newest, in order, and nothing of others."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_retention as explain
from pytest_ckpt.contracts.base import Contract, Evidence, OfBaseline, OfSchedule, promised, recognised, successive
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import checkpoints_text, no_steps
from pytest_ckpt.contracts.leftovers import is_temporary
from pytest_ckpt.contracts.shelf import Moment, is_continued, moments, taken_away, unseen
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True)
class Retention(OfBaseline, OfSchedule):
    """Old checkpoints are deleted, oldest first: at most `keep` remain after a save, and the newest is one of them.

    What this run did not write is left alone. The checkpoint of step `best` stays, too, beside the others. Without `keep` the
    limit follows from the framework's configuration.
    """

    name: ClassVar[str] = "retention"
    keep: int | None = None
    _: KW_ONLY
    best: int | None = None

    def __post_init__(self) -> None:
        for argument, what in (("keep", "a number of checkpoints"), ("best", "the number of the best step")):
            given: object = getattr(self, argument)
            if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
                message = f"{argument} must be {what}, 1 or more; got {given!r}"
                raise InvalidArgument(message)

    @classmethod
    def default(cls) -> Contract | None:
        """Return the contract as the default set has it: the limit follows from the framework's configuration."""
        return cls()

    def judge(self, evidence: Evidence) -> Verdict:
        """Follow the checkpoints through the looks."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        if not run.written and self.keep is not None:
            return inconclusive(self.name, nothing_saved(run))
        shelves = list(self._shelves(run))
        findings = [finding for shelf in shelves for finding in shelf.findings(evidence)]
        findings += _of_others(run)
        if findings:
            return violated(self.name, *findings)
        deleted = sum(len(moment.deleted) for shelf in shelves for moment in shelf.moments)
        if self.best is None and not deleted and not any(shelf.keep and shelf.ours for shelf in shelves):
            return not_applicable(self.name, "no limit on kept checkpoints is known, and nothing was deleted")
        return held(self.name, _sentence(shelves, deleted))

    def _shelves(self, run: RunRecord) -> Iterator[Shelf]:
        """Yield the places in which checkpoints are kept, with the limit of each."""
        limited = [facts for facts in run.frameworks if facts.keep is not None and facts.save_dir is not None]
        if self.keep is not None or not limited:
            yield Shelf.of(
                run, successive(run), Shelf(run=run, keep=self.keep, best=self.best, is_asked=self.keep is not None)
            )
            return
        for facts in limited:
            found = [c for c in recognised(run) if str(PurePosixPath(c.path).parent) == facts.save_dir]
            shelf = Shelf(run=run, keep=facts.keep, best=self.best, spares_best=facts.keeps_best)
            yield Shelf.of(run, found, shelf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The checkpoints that one limit governs.

    Attributes:
        keep: the limit, if it is known.
        best: the step that stays beside the newest, if it was named.
        spares_best: whether one that is the best may stay, whatever its step.
        is_asked: whether the limit is the marker's own.
        ours: the checkpoints of this run, and of the one that it goes on with.
        moments: what was there of them over time.
    """

    run: RunRecord
    keep: int | None
    best: int | None = None
    spares_best: bool = False
    is_asked: bool = False
    ours: tuple[Checkpoint, ...] = ()
    moments: tuple[Moment, ...] = ()

    @classmethod
    def of(cls, run: RunRecord, checkpoints: Sequence[Checkpoint], empty: Shelf) -> Shelf:
        """Return the shelf with the checkpoints on it that this run may delete."""
        ours = tuple(c for c in checkpoints if not c.foreign or is_continued(run))
        ours += unseen(run, ours)
        return replace(empty, ours=ours, moments=tuple(moments(run, ours)))

    @property
    def most(self) -> int | None:
        """How many may lie there, the best one included."""
        if self.keep is None:
            return None
        if self.best is not None:
            return self.keep + 1
        return max(self.keep, 2) if self.spares_best else self.keep

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Yield what is wrong."""
        yield from self._newest(evidence)
        yield from self._best()
        yield from self._too_many()
        yield from self._too_few()
        yield from self._order()

    def _newest(self, evidence: Evidence) -> Iterator[Finding]:
        written = [checkpoint for checkpoint in self.ours if not checkpoint.foreign]
        if not written:
            return
        newest = max(written, key=lambda c: (self.run.step_of(c), c.look))
        step = self.run.step_of(newest)
        others = [c for c in self.run.kept if not c.foreign and (c.kind == "full" or c in self.ours)]
        elsewhere = [c for c in others if self.run.step_of(c) >= step]
        if not newest.kept and not elsewhere:
            yield explain.newest_deleted(newest, self.run, evidence.advisor)

    def _best(self) -> Iterator[Finding]:
        if self.best is None:
            return
        of_best = [c for c in promised(self.run) if self.run.step_of(c) == self.best and not c.foreign]
        if not any(checkpoint.kept for checkpoint in of_best):
            yield explain.best_is_missing(self.best, of_best, self.run)

    def _too_many(self) -> Iterator[Finding]:
        if self.most is None:
            return
        counts = [len(moment.present) for moment in self.moments]
        over = [
            moment
            for index, moment in enumerate(self.moments)
            if counts[index] > self.most + 1
            or (counts[index] > self.most and (moment.lasting or counts[index + 1] > self.most))
        ]
        if over:
            yield explain.too_many(max(over, key=lambda moment: len(moment.present)), self.most, self.run)

    def _too_few(self) -> Iterator[Finding]:
        """See that no more was deleted than the limit asks for; not where only the best may remain."""
        if self.keep is None or self.spares_best or not self.moments:
            return
        deleted = [checkpoint for moment in self.moments for checkpoint in moment.deleted]
        left, ever = self.moments[-1].present, {checkpoint.path for checkpoint in self.ours}
        if deleted and len(left) < min(self.keep, len(ever)) and any(c.kept for c in self.ours):
            yield explain.too_few(left, deleted, self.keep, self.run)

    def _order(self) -> Iterator[Finding]:
        """Yield a deletion that spared an older checkpoint; where nobody names a rule, only if the names explain it."""
        wrong = [(moment, *pair) for moment in self.moments for pair in self._spared(moment)]
        by_name = _is_by_name(self.moments)
        if wrong and (by_name or self.keep is not None):
            moment, deleted, spared = wrong[0]
            yield explain.wrong_order(moment, deleted, spared, self.run, by_name=by_name)

    def _spared(self, moment: Moment) -> Iterator[tuple[Checkpoint, Checkpoint]]:
        """Yield deleted checkpoints, each with the oldest one that was spared."""
        rest = [checkpoint for checkpoint in moment.present if self.run.step_of(checkpoint) != self.best]
        older = rest[1:] if self.spares_best else rest
        for deleted in moment.deleted:
            if older and self.run.step_of(older[0]) < self.run.step_of(deleted) != self.best:
                yield deleted, older[0]


def _is_by_name(found: Sequence[Moment]) -> bool:
    """Say whether every deletion took what comes first when names are sorted as text."""
    return all(
        max(checkpoint.path for checkpoint in moment.deleted) < min(checkpoint.path for checkpoint in moment.present)
        for moment in found
        if moment.deleted and moment.present
    )


def _of_others(run: RunRecord) -> Iterator[Finding]:
    """Yield what was deleted of others: of an earlier run, or of no run at all."""
    own = {path for checkpoint in run.checkpoints if is_continued(run) for path in checkpoint.files}
    files = [path for path in taken_away(run, own) if not is_temporary(path)]
    if files:
        yield explain.not_ours(files, run)


def _sentence(shelves: Sequence[Shelf], deleted: int) -> str:
    most = max((len(moment.present) for shelf in shelves for moment in shelf.moments if moment.lasting), default=0)
    limit = next((f", at most {shelf.most} may" for shelf in shelves if shelf.most), "")
    order = f"; {checkpoints_text(deleted)} deleted, oldest first" if deleted else ""
    return f"never more than {checkpoints_text(most)} remained after a save{limit}{order}, the newest is there"
