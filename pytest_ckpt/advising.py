"""What contracts are told by the framework that took part in a job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import FrameworkFacts, RunRecord
    from pytest_ckpt.records.verdict import Advice


@dataclass(frozen=True, slots=True)
class FrameworkAdvisor:
    """Asks the framework that took part in the baseline, the last where several trained one after the other."""

    framework: Framework
    facts: FrameworkFacts
    baseline: RunRecord
    phases: int

    def component(self, component: str, checkpoint: Checkpoint) -> Advice:
        """Explain why `component` differs after resuming from `checkpoint`."""
        return self.framework.advise(component, checkpoint, self.facts)

    def missing_final(self) -> Advice:
        """Explain why the last step is not on disk."""
        return self.framework.advise_missing_final(self.facts, self.baseline)

    def expected_count(self) -> int | None:
        """Return how many checkpoints should remain; None where several trainings share the directory."""
        return self.framework.expected_count(self.facts, self.baseline) if self.phases == 1 else None

    def promised_steps(self) -> frozenset[int] | None:
        """Return the steps that the configuration has saved; None where several trainings took place."""
        return self.framework.promised_steps(self.facts, self.baseline) if self.phases == 1 else None

    def required_files(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return the files that `checkpoint` must have, by the settings of the training that saved it."""
        return self.framework.required_files(checkpoint, self._facts_of(checkpoint))

    def _facts_of(self, checkpoint: Checkpoint) -> FrameworkFacts:
        folder = str(PurePosixPath(checkpoint.path).parent)
        own = [facts for facts in self.baseline.frameworks if facts.name == self.framework.name]
        return next((facts for facts in own if facts.save_dir == folder), self.facts)
