"""A contract of Acme's: whoever finds a checkpoint finds out what it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_ckpt import Finding, InvalidArgument, Verdict


@dataclass(frozen=True)
class ModelCard:
    """Each checkpoint that remains has a model card: a README.md, or `file`, with at least so many bytes."""

    name: ClassVar[str] = "model_card"
    file: str = "README.md"
    least: int = 1

    def __post_init__(self):
        if self.least < 1:
            message = f"least must be 1 or more; got {self.least}"
            raise InvalidArgument(message)

    @classmethod
    def default(cls):
        """Belong to the set of ckpt_contract with the values above."""
        return cls()

    def plan(self, evidence):
        """Ask for no run but the baseline."""
        return ()

    def judge(self, evidence):
        """Look for the file in each folder that a resume could name."""
        kept = [checkpoint for checkpoint in evidence.baseline.kept if not checkpoint.foreign]
        if not kept:
            finding = Finding(title="no checkpoint remains", fix="have the job save one.")
            return self._verdict("inconclusive", finding.title, finding)
        tree = evidence.baseline.looks[-1].tree
        without = [checkpoint for checkpoint in kept if self._size(tree, checkpoint) < self.least]
        if not without:
            return self._verdict("held", f"{len(kept)} of {len(kept)} checkpoints have a {self.file}")
        rows = tuple((checkpoint.path, self._told(self._size(tree, checkpoint))) for checkpoint in kept)
        size = "1 byte" if self.least == 1 else f"{self.least} bytes"
        finding = Finding(
            title=f"{len(without)} of {len(kept)} checkpoints have no {self.file} of at least {size}",
            rows=rows,
            fix=f"write a {self.file} of at least {size} into each checkpoint.",
            checkpoint=without[0].identity,
        )
        return self._verdict("violated", finding.title, finding)

    def _size(self, tree, checkpoint):
        entry = tree.get(f"{checkpoint.path}/{self.file}")
        return entry.size if entry is not None else 0

    def _told(self, size):
        return f"{self.file} of {size} bytes" if size else f"no {self.file}"

    def _verdict(self, status, sentence, *findings):
        return Verdict(contract=self.name, status=status, sentence=sentence, findings=findings)
