"""What frameworks tell in a job's process, on its way to the journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.records.experiment import Changes
    from pytest_ckpt.records.loading import Loading
    from pytest_ckpt.records.rehearsal import Rehearsal
    from pytest_ckpt.records.run import FrameworkFacts
    from pytest_ckpt.runs.journal import Journal
    from pytest_ckpt.runs.probe import Probe


class Observer:
    """Passes on what a framework tells, see `pytest_ckpt.frameworks.protocol.Observer`."""

    def __init__(
        self, probe: Probe, journal: Journal, *, directory: Path, changes: Changes, loading: str | None
    ) -> None:
        self._journal = journal
        self._directory = directory
        self._changes: dict[str, object] = dict(changes)
        self._job_applies = False
        self.loading = loading
        self.expect_told = probe.expect_told
        self.end_step = probe.end_step
        self._probe = probe

    def look(self, phase: str) -> None:
        """Look at the directory; when training ends, at what a save could write, too."""
        self._probe.look(phase)
        if phase == "train_end":
            self._probe.state(phase)

    @property
    def changes(self) -> dict[str, object]:
        """What is left to the framework: a job that has read the changed settings applies them by itself."""
        return {} if self._job_applies else self._changes

    def asked(self, what: str) -> None:
        """Note that the job has read something of its experiment."""
        self._journal.write("asked", {"what": what})
        self._job_applies |= what == "changed"

    def rehearsal(self, rehearsal: Rehearsal) -> None:
        """Note that a rehearsal begins, of which a glance at each step is enough."""
        self._journal.write("rehearsal", rehearsal)
        self._probe.skim()

    def framework(self, facts: FrameworkFacts) -> None:
        """Note what a framework is about to do."""
        self._journal.write("framework", facts)

    def loaded(self, loading: Loading, models: Sequence[object]) -> None:
        """Note what a loader did, and end the process."""
        from pytest_ckpt.runs.naming import with_tensors

        self._journal.write("loaded", with_tensors(loading, models))
        self._probe.stop()

    def relative(self, path: str) -> str:
        """Return a path relative to the directory where it lies below it."""
        from pytest_ckpt.runs.saves import relative

        return relative(Path(path), self._directory)

    def saving(self, path: str, by: str) -> None:
        """Note that a framework begins a save."""
        self._probe.saving(self.relative(path), by)
