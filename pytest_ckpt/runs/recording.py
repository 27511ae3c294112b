"""What a run left behind, put together into its record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pytest_ckpt.checkpoints.catalogue import catalogue
from pytest_ckpt.checkpoints.pointers import absolute_pointers
from pytest_ckpt.checkpoints.reading import FileContent, ReadError, read_tensors
from pytest_ckpt.checkpoints.returned import unsaved_in_the_end
from pytest_ckpt.checkpoints.state_table import StateTable
from pytest_ckpt.checkpoints.units import Unit
from pytest_ckpt.records.run import Look, RunRecord
from pytest_ckpt.runs.assemble import Assembled, assemble
from pytest_ckpt.runs.ending import outcome, sections
from pytest_ckpt.runs.hearing import SOURCES, said
from pytest_ckpt.runs.imports import catch_up
from pytest_ckpt.runs.journal import events
from pytest_ckpt.runs.tracing import trace_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.checkpoints.store import EvidenceStore
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import FrameworkFacts
    from pytest_ckpt.records.tree import Entry
    from pytest_ckpt.runs.child import RunPlan
    from pytest_ckpt.runs.processes import Ended

#: What is in files, by the digest of the file and the ending of its name: each is read once.
Contents: TypeAlias = "dict[str, FileContent | ReadError]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Reads journals and evidence.

    Attributes:
        store: where the runs have kept what they wrote.
        contents: what has been read already; added to.
    """

    store: EvidenceStore
    frameworks: Sequence[Framework]
    contents: Contents

    def record(
        self, experiment: Experiment, plan: RunPlan, ended: Ended, method: str, notes: tuple[str, ...]
    ) -> RunRecord:
        """Return all that was seen of a run.

        Args:
            method: how its process was started.
            notes: what the reader should know about what it started from.
        """
        seen = assemble(events(plan.journal))
        if not seen.stopped:
            self._look_once_more(seen, plan)
        if method == "fork":
            catch_up(seen.imported)
        return RunRecord(
            experiment=experiment,
            outcome=outcome(ended, seen, method, plan.output("stderr")),
            steps=seen.steps,
            states=tuple(seen.states),
            looks=tuple(seen.looks),
            saves=tuple(seen.saves),
            frameworks=tuple(seen.frameworks.values()),
            sections=sections(plan),
            said=said(seen.heard, len(seen.steps), {source: plan.output(source) for source in SOURCES}),
            directory=str(plan.directory),
            scores=seen.scores,
            asked=frozenset(seen.asked),
            unsaved=unsaved_in_the_end(seen.steps, seen.states, seen.looks, self._read),
            strays=_strays(seen),
            pointers=absolute_pointers(seen.looks, self.store, plan.directory),
            allowed=seen.allowed,
            loading=seen.loading,
            rehearsal=seen.rehearsal,
            trace=trace_of(plan, ended, seen.looks, self.store),
            struck=seen.struck,
            notes=(*notes, *seen.notes),
            checkpoints=self._checkpoints(seen),
        )

    def _look_once_more(self, seen: Assembled, plan: RunPlan) -> None:
        """Look at what is left of a job that may have ended without a look of its own: in a handler, or by a signal.

        What it saves as Python ends is not seen otherwise, either.
        """
        directory = plan.lies_in or plan.directory
        if seen.looks and not self.store.is_as_in(seen.looks[-1].tree, directory):
            tree = self.store.capture(directory)
            seen.looks.append(Look(step=len(seen.steps), phase="exit", tree=tree, at_rest=True, time_ns=time.time_ns()))

    def _checkpoints(self, seen: Assembled) -> tuple[Checkpoint, ...]:
        table = StateTable.of(seen.steps, seen.states, own_names=seen.own_names)
        units = self._known_units(seen)
        return catalogue(seen.looks, seen.saves, units, seen.pattern, self._read, table, of_rank=seen.is_rank)

    def _known_units(self, seen: Assembled) -> list[Unit]:
        """Return what the layouts of the frameworks that took part recognise at any look."""
        units: dict[str, Unit] = {}
        for framework, facts in took_part(seen.frameworks.values(), self.frameworks):
            if facts.save_dir is None or facts.save_dir.startswith("/"):
                continue
            for look in seen.looks:
                for found in framework.find(look.tree, facts.save_dir):
                    units[found.path] = Unit(
                        path=found.path, claimed=found.claimed, claim_is_step=found.claimed is not None
                    )
        return list(units.values())

    def _read(self, entry: Entry) -> FileContent | ReadError:
        key = f"{entry.content} {Path(entry.path).suffix}"
        if key not in self.contents:
            try:
                self.contents[key] = read_tensors(self.store.path_of(entry.content), name=Path(entry.path).name)
            except ReadError as error:
                self.contents[key] = error
        return self.contents[key]


def took_part(
    facts: Iterable[FrameworkFacts], frameworks: Iterable[Framework]
) -> list[tuple[Framework, FrameworkFacts]]:
    """Return the frameworks that told of themselves, each with what it told."""
    by_name = {framework.name: framework for framework in frameworks}
    return [(by_name[fact.name], fact) for fact in facts if fact.name in by_name]


def _strays(seen: Assembled) -> tuple[str, ...]:
    """Return what was saved outside the job's directory and is still there, be it under the name that it got when whole."""
    paths = dict.fromkeys(Path(save.path) for save in seen.saves if save.path.startswith("/"))
    begun = seen.looks[0].time_ns if seen.looks else 0
    found = (one for path in paths for one in ([path] if path.exists() else _renamed(path, begun)))
    return tuple(dict.fromkeys(map(str, found)))


def _renamed(temporary: Path, begun: int) -> list[Path]:
    """Return what a file became that is gone: what lies beside it under a part of its name, and was written in this run."""
    try:
        beside = [path for path in temporary.parent.iterdir() if path.stem and path.name in temporary.name]
        return [path for path in beside if path.stat().st_mtime_ns >= begun]
    except OSError:  # the folder is gone, too
        return []
