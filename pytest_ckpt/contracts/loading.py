"""The contract that a checkpoint can be loaded elsewhere: by the framework's own loader, under the model's own names."""

from __future__ import annotations

import fnmatch
from dataclasses import KW_ONLY, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts import explain_loading as explain
from pytest_ckpt.contracts.arguments import check_flags
from pytest_ckpt.contracts.base import Contract, Evidence, promised, recognised, spread
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import checkpoints_text, no_steps
from pytest_ckpt.contracts.loaded_weights import Memory
from pytest_ckpt.records.experiment import load
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, not_applicable, violated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import FrameworkFacts, RunRecord


@dataclass(frozen=True)
class Loadable:
    """The framework's own loader reads each checkpoint as it was in memory, and no key has the name of a wrapper in it."""

    name: ClassVar[str] = "loadable"
    _: KW_ONLY
    weights_only: bool = False
    strict: bool = True
    newest: bool = False

    def __post_init__(self) -> None:
        check_flags(weights_only=self.weights_only, strict=self.strict, newest=self.newest)

    @classmethod
    def default(cls) -> Contract | None:
        """Try the loader of the framework alone, on the newest checkpoint: what else is asked may be meant as it is."""
        return cls(strict=False, newest=True)

    # -- which checkpoints -------------------------------------------------------------------------------------------

    def plan(self, evidence: Evidence) -> list[Experiment]:
        """Have each checkpoint loaded that a loader can read without the job."""
        run = evidence.baseline
        return [load(checkpoint.identity) for checkpoint in self._chosen(run) if _facts(checkpoint, run) is not None]

    def _chosen(self, run: RunRecord) -> tuple[Checkpoint, ...]:
        """Return some of the checkpoints of this run, and the mere models beside them."""
        own = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
        if self.newest:
            kept = [checkpoint for checkpoint in own if checkpoint.kept]
            return (max(kept, key=run.step_of),) if kept else ()
        return (*spread(own), *(checkpoint for checkpoint in run.written if checkpoint not in own and checkpoint.kept))

    # -- the verdict -------------------------------------------------------------------------------------------------

    def judge(self, evidence: Evidence) -> Verdict:
        """Say what the loader made of the checkpoints, and what stands in the way of others."""
        run, seen = evidence.baseline, _Seen()
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        chosen = self._chosen(run)
        if not self.strict and not any(_facts(checkpoint, run) for checkpoint in chosen):
            return not_applicable(
                self.name, "no framework took part that loads a checkpoint without what only the job knows"
            )
        if not chosen:
            return inconclusive(self.name, nothing_saved(run))
        memory = Memory(run)
        for checkpoint in chosen:
            self._try(checkpoint, evidence, memory, seen)
        if self.strict:
            seen.take_keys(run)
        if self.weights_only:
            seen.findings += [found for checkpoint in run.written for found in _refused(checkpoint, run)]
        return self._verdict(run, seen)

    def _try(self, checkpoint: Checkpoint, evidence: Evidence, memory: Memory, seen: _Seen) -> None:
        """Judge what the loader made of one checkpoint, if there is a loader."""
        run, facts = evidence.baseline, _facts(checkpoint, evidence.baseline)
        if facts is None:
            return
        made = evidence.of(load(checkpoint.identity))
        loading = None if made is None else made.loading
        if loading is None or loading.loader != facts.loader:
            seen.unclear.append(explain.did_not_load(checkpoint, made, facts.loader))
            return
        of_layout = checkpoint in recognised(run)
        if loading.unfit and not (self.strict and of_layout):
            seen.left_out.append(f"{facts.loader} need not load {checkpoint.path}: {loading.unfit}")
            return
        findings = list(explain.of_loading(checkpoint, run, loading, strict=self.strict))
        read = {
            name: value for name, value in loading.tensors.items() if name not in {*loading.missing, *loading.drawn}
        }
        compared = memory.compare(read, run.step_of(checkpoint) if of_layout else None)
        findings += explain.stale(checkpoint, run, loading, compared)
        unknown = compared.unknown or ([] if compared.equal else list(read))
        if unknown and not findings:
            seen.unclear.append(explain.unknown(checkpoint, run, loading, unknown))
        seen.loaded.append(checkpoint.identity)
        seen.loader, seen.parameters = facts.loader, compared.equal
        seen.findings += findings

    def _verdict(self, run: RunRecord, seen: _Seen) -> Verdict:
        if seen.findings:
            return violated(self.name, *seen.findings)
        if seen.unclear:
            return inconclusive(self.name, *seen.unclear)
        parts = []
        if seen.loaded:
            count, same = checkpoints_text(len(seen.loaded)), f"all {seen.parameters} parameters as they were in memory"
            parts.append(f"{seen.loader} reads {count}, {same}")
        if self.strict:
            parts.append(f"no key of {checkpoints_text(len(run.written))} has the name of a wrapper in it")
        if self.weights_only:
            parts.append("each file that a resume reads can be read with weights_only=True")
        if not parts:
            return not_applicable(self.name, seen.left_out[0])
        return held(self.name, "; ".join(parts), *seen.left_out)


@dataclass(slots=True)
class _Seen:
    """What was found so far.

    Attributes:
        loaded: identities of the checkpoints that a loader read, or tried to.
        left_out: why a loader does not count for a checkpoint.
    """

    findings: list[Finding] = field(default_factory=list)
    unclear: list[Finding] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    loader: str = ""
    parameters: int = 0

    def take_keys(self, run: RunRecord) -> None:
        """Look at the keys of the checkpoints that no loader has read: it looks at them by itself."""
        for checkpoint in run.written:
            if checkpoint.identity not in self.loaded:
                self.findings += [explain.wrapped(checkpoint, run, found) for found in checkpoint.wrapped]
                if not _has_known_keys(checkpoint):
                    self.unclear.append(explain.unreadable(checkpoint))


def _facts(checkpoint: Checkpoint, run: RunRecord) -> FrameworkFacts | None:
    """Return the framework that saved a checkpoint, if it has a loader of its own."""
    parents = [str(parent) for parent in PurePosixPath(checkpoint.path).parents]
    mine = [facts for facts in run.frameworks if facts.save_dir in parents]
    nearest = sorted(mine, key=lambda facts: parents.index(str(facts.save_dir)))
    return nearest[0] if nearest and nearest[0].loader else None


def _refused(checkpoint: Checkpoint, run: RunRecord) -> Iterator[Finding]:
    """Yield the files of a checkpoint that a resume reads and torch.load(weights_only=True) does not."""
    allowed = {*run.allowed, *(name for facts in run.frameworks for name in facts.allowed)}
    unread = [pattern for facts in run.frameworks for pattern in facts.unread]
    for path, names in checkpoint.refused.items():
        left = tuple(name for name in names if name not in allowed)
        if left and not any(fnmatch.fnmatchcase(PurePosixPath(path).name, pattern) for pattern in unread):
            yield explain.refused(checkpoint, run, path, left)


def _has_known_keys(checkpoint: Checkpoint) -> bool:
    return checkpoint.content is not None and checkpoint.content.matched > 0
