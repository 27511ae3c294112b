"""The lab runs experiments, each once, and keeps what was seen; it is the only place that starts processes."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from pytest_ckpt.advising import FrameworkAdvisor
from pytest_ckpt.checkpoints.store import EvidenceStore
from pytest_ckpt.contracts.asking import Asking
from pytest_ckpt.contracts.base import Evidence, NoAdvice
from pytest_ckpt.experiments.conditions import prepare, seed_of
from pytest_ckpt.records.experiment import BASELINE
from pytest_ckpt.records.verdict import Timeline
from pytest_ckpt.runs.child import RunPlan
from pytest_ckpt.runs.launch import Launcher
from pytest_ckpt.runs.recording import Recorder, took_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_ckpt.contracts.base import Advisor, Contract
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Tree
    from pytest_ckpt.records.verdict import Verdict
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.runs.processes import Ended
    from pytest_ckpt.runs.recording import Contents

#: How many runs have to go on at a time for mounts of their own to cost less than they save, where runs are short.
_MANY: Final = 4
#: How many crash states for each process are tried before the time is looked at.
_AT_A_TIME: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSettings:
    """How a lab runs jobs.

    Attributes:
        timeout: seconds that one run may take.
        start_method: `fork`, `spawn`, or `auto` for fork where it can serve.
        processes: how many runs may go on at a time, where the system lets each have its own directory at the job's path.
        waiting: called about five times a second with the journal of a run that goes on alone.
        budget: seconds after which no more crash states are tried.
    """

    timeout: float = 120.0
    start_method: str = "auto"
    processes: int = 1
    waiting: Callable[[Path], None] | None = None
    budget: float = float("inf")


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
    _had_company: set[Experiment] = field(default_factory=set)
    _left_out: set[Experiment] = field(default_factory=set)
    _spent: float = 0.0
    _folders: int = 0
    _initial: Tree | None = None
    _contents: Contents = field(default_factory=dict)
    _asking: Asking = field(default_factory=Asking)

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
        """Run what the contracts need and return their verdicts, in order.

        What is told as broken or undecided was seen in runs that had no other beside them.
        """
        contracts = list(contracts)
        self.run()
        self._run_planned(contracts, self._run_side_by_side)
        verdicts = [self._asking.verdict(contract, self.evidence) for contract in contracts]
        while again := self._to_run_alone(contracts, verdicts):
            self.runs = {experiment: run for experiment, run in self.runs.items() if experiment not in again}
            self._had_company.difference_update(again)
            self._run_alone(again)
            self._run_planned(contracts, self._run_alone)
            verdicts = [self._asking.verdict(contract, self.evidence) for contract in contracts]
        return [found if found.ok else self._with_notes(found) for found in verdicts]

    def _with_notes(self, found: Verdict) -> Verdict:
        """Add what stood in the way of looking at the job: the verdict may come of it."""
        return replace(found, notes=(*found.notes, *self.run().notes))

    def _to_run_alone(self, contracts: Sequence[Contract], verdicts: Sequence[Verdict]) -> list[Experiment]:
        """Return the runs with company that something is told of; of many crash states alike the first stands for all."""
        told = {number for found in verdicts for finding in found.findings for number in finding.states[:1]}
        doubtful = [contract for contract, found in zip(contracts, verdicts, strict=True) if not found.ok]
        asked = dict.fromkeys(
            experiment for contract in doubtful for experiment in self._asking.planned(contract, self.evidence)
        )
        again = [experiment for experiment in asked if experiment in self._had_company]
        return [experiment for experiment in again if experiment.crash is None or experiment.crash in told]

    def _run_planned(self, contracts: Sequence[Contract], run: Callable[[list[Experiment]], None]) -> None:
        """Run what the contracts need and has not been run, until they need nothing more."""
        while wanted := self._wanted(contracts):
            crashes = [experiment for experiment in wanted if experiment.crash is not None]
            run([experiment for experiment in wanted if experiment.crash is None])
            started = time.monotonic() - self._spent
            for place in range(0, len(crashes), some := _AT_A_TIME * self.settings.processes):
                if time.monotonic() - started > self.settings.budget:
                    self._left_out.update(crashes[place:])
                    break
                run(crashes[place : place + some])
            self._spent = time.monotonic() - started

    def _wanted(self, contracts: Sequence[Contract]) -> list[Experiment]:
        """Return what the contracts need and has neither been run nor been left out, by turns."""
        turns = zip_longest(*(self._asking.planned(contract, self.evidence) for contract in contracts))
        asked = dict.fromkeys(experiment for turn in turns for experiment in turn if experiment is not None)
        return [experiment for experiment in asked if experiment not in self.runs and experiment not in self._left_out]

    @property
    def evidence(self) -> Evidence:
        """The runs made so far, for contracts to judge."""
        return Evidence(runs=dict(self.runs), advisor=self._advisor())

    @property
    def timeline(self) -> Timeline:
        """Which steps of the baseline were trained, saved and kept."""
        run = self.run()
        kept = {run.step_of(checkpoint) for checkpoint in run.kept if not checkpoint.foreign}
        return Timeline(steps=run.last_step, saved=run.saved_steps, kept=tuple(sorted(kept)))

    def leave(self, look: int = -1) -> None:
        """Make the job's directory what it was at a look of the baseline, the last one by default."""
        if BASELINE in self.runs and self.runs[BASELINE].looks:
            self._store.materialise(self.runs[BASELINE].looks[look].tree, self.job.path)

    def lay_out(self, tree: Tree, folder: Path) -> None:
        """Make a directory hold what a look or a crash state of a run held."""
        self._store.materialise(tree, folder)

    def close(self) -> None:
        """Remove all evidence."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- one run -----------------------------------------------------------------------------------------------------

    @property
    def _store(self) -> EvidenceStore:
        return EvidenceStore(self.folder / "evidence")

    @property
    def _recorder(self) -> Recorder:
        return Recorder(store=self._store, frameworks=self.frameworks, contents=self._contents)

    @property
    def _launcher(self) -> Launcher:
        return Launcher(
            timeout=self.settings.timeout,
            start_method=self.settings.start_method,
            processes=self.settings.processes,
            frameworks=self.frameworks,
            reseed=self.reseed,
            waiting=self.settings.waiting,
        )

    def _run(self, experiment: Experiment) -> RunRecord:
        plan, notes = self._plan(experiment)
        with self._launcher.run(plan) as (ended, method):
            return self._observed(experiment, plan, ended, method, notes)

    def _run_alone(self, experiments: Iterable[Experiment]) -> None:
        for experiment in experiments:
            self.run(experiment)

    def _run_side_by_side(self, experiments: list[Experiment]) -> None:
        """Run several experiments at a time; what does not end well beside others is run again alone."""
        fit = [experiment for experiment in experiments if self._may_have_company(experiment)]
        if len(fit) > 1 and self._launcher.can_run_side_by_side():
            ended = self._together(fit)
            well = [experiment for experiment in fit if ended[experiment].outcome.ok]
            self.runs.update({experiment: ended[experiment] for experiment in well})
            self._had_company.update(well)
        self._run_alone(experiments)

    def _may_have_company(self, experiment: Experiment) -> bool:
        """Say whether a run may have others beside it, and gains by that: a restart of one step takes less than its mounts."""
        gains = experiment.crash is None or self.settings.processes >= _MANY
        return gains and not experiment.moved and not experiment.is_traced

    def _together(self, experiments: list[Experiment]) -> dict[Experiment, RunRecord]:
        made: dict[Path, tuple[Experiment, tuple[str, ...]]] = {}

        def plans() -> Iterator[RunPlan]:
            for experiment in experiments:
                plan, notes = self._plan(experiment, apart=True)
                made[plan.folder] = (experiment, notes)
                yield plan

        found = {}
        with closing(self._launcher.side_by_side(plans())) as ended:
            for plan, how in ended:
                experiment, notes = made[plan.folder]
                found[experiment] = self._observed(experiment, plan, how, "fork", notes)
        return found

    def _plan(self, experiment: Experiment, *, apart: bool = False) -> tuple[RunPlan, tuple[str, ...]]:
        """Lay out the directory of an experiment, where asked for apart from its path, and return how to run it and notes."""
        if self._initial is None:
            self._initial = self._store.capture(self.job.path)
        folder = self.folder / f"run{self._folders}"
        self._folders += 1
        folder.mkdir(parents=True)
        start = prepare(
            experiment,
            initial=self._initial,
            origin=self.runs.get(experiment.origin or BASELINE),
            store=self._store,
            root=self.job.path,
            lies_in=folder / "dir" if apart else None,
            seed_text=self.seed_text,
        )
        plan = RunPlan(
            job=self.job,
            body=self.body,
            directory=start.root,
            lies_in=start.lies_in,
            folder=folder,
            store=self.folder / "evidence",
            seed=start.seed if self.reseed else seed_of(self.seed_text),
            resume_from=start.resume_from,
            is_baseline=experiment.is_whole,
            restarting=experiment.kind == "restart",
            loads=experiment.kind == "load",
            changes=experiment.changes,
            stop_after=experiment.stop_after,
            fails=experiment.kind == "error",
            traced=experiment.is_traced,
            fault=experiment.fault,
            strike=experiment.strike,
            slowness=experiment.slowness,
            updates=self.runs[BASELINE].updates_until(experiment.stop_after or 0) if BASELINE in self.runs else 0,
            frameworks=self.frameworks,
            skips=self.skips,
        )
        return plan, start.notes

    def _observed(
        self, experiment: Experiment, plan: RunPlan, ended: Ended, method: str, notes: tuple[str, ...]
    ) -> RunRecord:
        """Return the record of a run that has ended, and clear away a directory that was made for it."""
        record = self._recorder.record(experiment, plan, ended, method, notes)
        made = plan.lies_in or plan.directory
        if made != self.job.path:
            shutil.rmtree(made, ignore_errors=True)
        return record

    # -- what is told of it ------------------------------------------------------------------------------------------

    def _advisor(self) -> Advisor:
        baseline = self.runs.get(BASELINE)
        told = took_part(baseline.frameworks, self.frameworks) if baseline is not None else []
        if baseline is None or not told:
            return NoAdvice()
        return FrameworkAdvisor(*told[-1], baseline, phases=len(told))
