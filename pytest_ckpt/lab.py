"""The lab runs experiments, each once, and keeps what was seen; it is the only place that starts processes."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_ckpt.advising import FrameworkAdvisor
from pytest_ckpt.checkpoints.catalogue import catalogue
from pytest_ckpt.checkpoints.content import StateTable
from pytest_ckpt.checkpoints.pointers import absolute_pointers
from pytest_ckpt.checkpoints.reading import FileContent, ReadError, read_tensors
from pytest_ckpt.checkpoints.returned import unsaved_in_the_end
from pytest_ckpt.checkpoints.store import EvidenceStore
from pytest_ckpt.checkpoints.units import Unit
from pytest_ckpt.contracts.base import Evidence, NoAdvice
from pytest_ckpt.experiments.conditions import prepare, seed_of
from pytest_ckpt.records.experiment import BASELINE
from pytest_ckpt.records.run import RunRecord
from pytest_ckpt.runs.assemble import Assembled, assemble
from pytest_ckpt.runs.child import RunPlan, run_job
from pytest_ckpt.runs.ending import outcome, sections
from pytest_ckpt.runs.imports import catch_up
from pytest_ckpt.runs.journal import events
from pytest_ckpt.runs.supervise import run_forked, run_spawned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_ckpt.contracts.base import Advisor, Contract
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import FrameworkFacts
    from pytest_ckpt.records.tree import Entry, Tree
    from pytest_ckpt.records.verdict import Verdict
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.runs.processes import Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSettings:
    """How a lab runs jobs.

    Attributes:
        timeout: seconds that one run may take.
        start_method: `fork`, `spawn`, or `auto` for fork where it can serve.
    """

    timeout: float = 120.0
    start_method: str = "auto"


@dataclass(slots=True)
class Lab:
    """One job and all that was found out about it.

    Attributes:
        job: the object that the job is given.
        body: the job, called without arguments.
        folder: where evidence is kept; emptied by `close`.
        seed_text: what seeds are derived from; equal texts give equal runs.
        skips: exceptions by which a job says that it can't run here.
        reseed: whether each process is seeded before the job; otherwise it keeps the random state it was forked with.
    """

    job: Job
    body: Callable[[], object]
    folder: Path
    seed_text: str
    frameworks: Sequence[Framework] = ()
    settings: LabSettings = field(default_factory=LabSettings)
    skips: tuple[type[BaseException], ...] = ()
    reseed: bool = True
    runs: dict[Experiment, RunRecord] = field(default_factory=dict)
    _initial: Tree | None = None
    _contents: dict[str, FileContent | ReadError] = field(default_factory=dict)

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, experiment: Experiment = BASELINE) -> RunRecord:
        """Return the run of an experiment, which is made if it has not been yet.

        Raises:
            HarnessError: the run could not be made or observed.
            KeyError: the experiment names a checkpoint that the baseline has not.
        """
        if experiment not in self.runs:
            self.runs[experiment] = self._run(experiment)
        return self.runs[experiment]

    def judge(self, contracts: Iterable[Contract]) -> list[Verdict]:
        """Run what the contracts need and return their verdicts, in order."""
        contracts = list(contracts)
        self.run()
        while wanted := [e for contract in contracts for e in contract.plan(self.evidence) if e not in self.runs]:
            for experiment in dict.fromkeys(wanted):
                self.run(experiment)
        return [contract.judge(self.evidence) for contract in contracts]

    @property
    def evidence(self) -> Evidence:
        """The runs made so far, for contracts to judge."""
        return Evidence(runs=dict(self.runs), advisor=self._advisor())

    def leave(self, look: int = -1) -> None:
        """Make the job's directory what it was at a look of the baseline, the last one by default."""
        if BASELINE in self.runs and self.runs[BASELINE].looks:
            self._store.materialise(self.runs[BASELINE].looks[look].tree, self.job.path)

    def close(self) -> None:
        """Remove all evidence."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- one run -----------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> EvidenceStore:
        return EvidenceStore(self.folder / "evidence")

    def _run(self, experiment: Experiment) -> RunRecord:
        store = self._store
        if self._initial is None:
            self._initial = store.capture(self.job.path)
        start = prepare(
            experiment,
            initial=self._initial,
            origin=self.runs.get(experiment.origin or BASELINE),
            store=store,
            root=self.job.path,
            seed_text=self.seed_text,
        )
        folder = self.folder / f"run{len(self.runs)}"
        folder.mkdir(parents=True)
        plan = RunPlan(
            job=self.job,
            body=self.body,
            directory=start.root,
            folder=folder,
            store=self.folder / "evidence",
            seed=start.seed if self.reseed else seed_of(self.seed_text),
            resume_from=start.resume_from,
            is_baseline=experiment.kind in {"baseline", "repeat"} and not experiment.changes,
            restarting=experiment.kind == "restart",
            loads=experiment.kind == "load",
            changes=experiment.changes,
            stop_after=experiment.stop_after,
            fails=experiment.kind == "error",
            updates=self.runs[BASELINE].updates_until(experiment.stop_after or 0) if BASELINE in self.runs else 0,
            frameworks=self.frameworks,
            skips=self.skips,
        )
        ended, method = self._execute(plan)
        record = self._record(experiment, plan, ended, method, start.notes)
        if start.root != self.job.path:
            shutil.rmtree(start.root, ignore_errors=True)
        return record

    def _execute(self, plan: RunPlan) -> tuple[Ended, str]:
        """Run a plan in a process of its own; a hang before the first step is tried again without fork."""
        from pytest_ckpt.runs import probe, saves  # noqa: F401 - imported once here, with torch, not in each child

        if not self._can_fork():
            return self._start(plan, "spawn"), "spawn"
        for framework in self.frameworks:
            if framework.module in sys.modules:
                framework.warm_up(sys.modules[framework.module])
        ended = self._start(plan, "fork")
        began = any(event == "tick" for event, _ in events(plan.journal))
        if not ended.timed_out or began or self.settings.start_method == "fork":
            return ended, "fork"
        plan.journal.unlink(missing_ok=True)
        return self._start(plan, "spawn"), "spawn, after a hang under fork"

    def _start(self, plan: RunPlan, method: str) -> Ended:
        timeout, stdout, stderr = self.settings.timeout, plan.output("stdout"), plan.output("stderr")
        if method == "fork":
            plan = plan if self.reseed else replace(plan, seed=None)
            return run_forked(partial(run_job, plan), timeout=timeout, stdout=stdout, stderr=stderr)
        return run_spawned(run_job, (plan,), timeout=timeout, stdout=stdout, stderr=stderr)

    def _can_fork(self) -> bool:
        """Say whether a forked process can train: not where there is no fork, nor after CUDA was used here."""
        if self.settings.start_method != "auto":
            return self.settings.start_method == "fork"
        if sys.platform != "linux":
            return False
        import torch  # it is imported already

        return not bool(torch.cuda.is_initialized())

    # -- what it left ------------------------------------------------------------------------------------------------

    def _record(
        self, experiment: Experiment, plan: RunPlan, ended: Ended, method: str, notes: tuple[str, ...]
    ) -> RunRecord:
        seen = assemble(events(plan.journal))
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
            scores=seen.scores,
            asked=frozenset(seen.asked),
            unsaved=unsaved_in_the_end(seen.steps, seen.states, seen.looks, self._read),
            strays=self._strays(seen),
            pointers=absolute_pointers(seen.looks, self._store, plan.directory),
            allowed=seen.allowed,
            loading=seen.loading,
            notes=(*notes, *seen.notes),
            checkpoints=self._checkpoints(seen),
        )

    def _checkpoints(self, seen: Assembled) -> tuple[Checkpoint, ...]:
        table = StateTable.of(seen.steps, seen.states, own_names=seen.own_names)
        return catalogue(seen.looks, seen.saves, self._known_units(seen), seen.pattern, self._read, table)

    def _known_units(self, seen: Assembled) -> list[Unit]:
        """Return what the layouts of the frameworks that took part recognise at any look."""
        units: dict[str, Unit] = {}
        for framework, facts in self._took_part(seen.frameworks.values()):
            if facts.save_dir is None or facts.save_dir.startswith("/"):
                continue
            for look in seen.looks:
                for found in framework.find(look.tree, facts.save_dir):
                    units[found.path] = Unit(
                        path=found.path, claimed=found.claimed, claim_is_step=found.claimed is not None
                    )
        return list(units.values())

    def _took_part(self, facts: Iterable[FrameworkFacts]) -> Iterable[tuple[Framework, FrameworkFacts]]:
        by_name = {framework.name: framework for framework in self.frameworks}
        return [(by_name[fact.name], fact) for fact in facts if fact.name in by_name]

    def _read(self, entry: Entry) -> FileContent | ReadError:
        key = f"{entry.content} {Path(entry.path).suffix}"
        if key not in self._contents:
            try:
                self._contents[key] = read_tensors(self._store.path_of(entry.content), name=Path(entry.path).name)
            except ReadError as error:
                self._contents[key] = error
        return self._contents[key]

    def _strays(self, seen: Assembled) -> tuple[str, ...]:
        """Return what was saved outside the job's directory and is still there."""
        paths = dict.fromkeys(save.path for save in seen.saves if save.path.startswith("/"))
        return tuple(path for path in paths if Path(path).exists())

    def _advisor(self) -> Advisor:
        baseline = self.runs.get(BASELINE)
        took_part = list(self._took_part(baseline.frameworks)) if baseline is not None else []
        if baseline is None or not took_part:
            return NoAdvice()
        return FrameworkAdvisor(*took_part[-1], baseline, phases=len(took_part))
