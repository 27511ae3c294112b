"""What happens in the process of one experiment: everything is put in place, the job runs, and it is told how that went."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.checkpoints.store import EvidenceStore
from pytest_ckpt.crashes import ending_in
from pytest_ckpt.runs import mounts
from pytest_ckpt.runs.hearing import SOURCES, Hearing
from pytest_ckpt.runs.imports import after_import
from pytest_ckpt.runs.interrupting import Interruption
from pytest_ckpt.runs.journal import Journal
from pytest_ckpt.runs.observing import Observer
from pytest_ckpt.runs.program import watching
from pytest_ckpt.runs.program_failure import ProgramFailed
from pytest_ckpt.runs.watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import ModuleType

    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.experiment import Changes
    from pytest_ckpt.records.fault import Fault
    from pytest_ckpt.records.slowness import Slowness
    from pytest_ckpt.records.strike import Strike
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.runs.probe import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """All that the process of one experiment needs.

    Attributes:
        body: the job; called without arguments.
        directory: where the job writes.
        lies_in: the directory that the process is to be shown there; None where what is there is right.
        seed: of the global random generators; None keeps the states that they were forked with.
        restarting: whether the job has to search for what it starts from.
        changes: settings that have other values than in the baseline.
        loads: whether a loader reads the checkpoint in the place of training.
        skips: exception types by which a job says that it can't run here.
        fails: whether the job meets an exception after `stop_after` steps; else it is ended there.
        traced: whether its system calls are seen.
        fault: which of them fail, and how.
        strike: which signal the job gets, and when.
        slowness: how slow the disk is for what is written beside the training.
        updates: how often optimizers step in those; with several of them a step goes on after the first.
    """

    job: Job
    body: Callable[[], object]
    directory: Path
    folder: Path
    store: Path
    seed: int | None
    resume_from: Path | None
    is_baseline: bool
    stop_after: int | None
    frameworks: Sequence[Framework]
    lies_in: Path | None = None
    restarting: bool = False
    loads: bool = False
    changes: Changes = ()
    skips: tuple[type[BaseException], ...] = ()
    fails: bool = False
    traced: bool = False
    fault: Fault | None = None
    strike: Strike | None = None
    slowness: Slowness | None = None
    updates: int = 0

    @property
    def journal(self) -> Path:
        """The file of events."""
        return self.folder / "journal.jsonl"

    def output(self, title: str) -> Path:
        """The file of captured output: `stdout`, `stderr`, `log` or `warnings`."""
        return self.folder / f"{title}.txt"


def run_job(plan: RunPlan) -> int:
    """Run the job in this process, which belongs to it alone, and return the exit code."""
    if plan.lies_in is not None:
        mounts.show(plan.lies_in, at=plan.directory)
    journal = Journal(plan.journal)
    _capture(plan)
    if plan.seed is not None:
        _seed(plan.seed)
    hearing = Hearing({source: plan.output(source) for source in SOURCES}, journal)
    watcher = Watcher(plan.directory, EvidenceStore(plan.store), journal, hearing)
    probe, observer = _probe(plan, journal, watcher)
    for framework in plan.frameworks:
        after_import(framework.module, _attach(framework, observer))
    watcher.look(0, "start")
    code, end = _call(plan)
    was_rank = probe.come_back()
    probe.look("train_end")
    probe.state("exit")
    _finish_threads()
    ending_in(plan.folder).touch()
    probe.look("exit")
    if not was_rank:
        probe.finish()
    if plan.job.pattern is not None:
        journal.write("layout", {"pattern": plan.job.pattern})
    journal.write("end", end)
    _save_coverage()
    return code


def look_at_program(plan: RunPlan, main: int) -> Observer:
    """Put the probe in place in a process of a program that the job has started; `main` is the job's own process.

    What frameworks tell is for the observer that is returned.
    """
    journal = Journal(plan.journal, main)
    if plan.seed is not None:
        _seed(plan.seed + int(os.environ.get("RANK", "0")))
    hearing = Hearing({source: plan.output(source) for source in SOURCES}, journal)
    return _probe(plan, journal, Watcher(plan.directory, EvidenceStore(plan.store), journal, hearing))[1]


def _probe(plan: RunPlan, journal: Journal, watcher: Watcher) -> tuple[Probe, Observer]:
    """Put the probe in place and let it be told by the job, and by what frameworks tell the observer."""
    import torch  # only here is it needed

    from pytest_ckpt.runs.probe import Probe
    from pytest_ckpt.runs.saves import notice_saves

    torch.set_num_threads(1)  # more threads hang in a process forked after a parallel region
    met = partial(journal.write, "asked", {"what": "error"})
    interruption = Interruption(plan.stop_after, fails=plan.fails, updates=plan.updates, on_error=met)
    probe = Probe(journal, watcher, interruption, plan.strike)
    probe.attach()
    notice_saves(probe, plan.directory, delay=0.0 if plan.slowness is None else plan.slowness.begin)
    loading = str(plan.resume_from) if plan.loads else None
    observer = Observer(probe, journal, directory=plan.directory, changes=plan.changes, loading=loading)
    plan.job.enter(
        plan.directory,
        resume_from=plan.resume_from,
        is_baseline=plan.is_baseline,
        restarting=plan.restarting,
        changes=dict(plan.changes),
        on_ask=observer.asked,
        on_step=probe.declare_step,
        on_score=lambda value: journal.write("score", {"value": value}),
        on_rehearsal=observer.rehearsal,
        on_reached=lambda what: journal.write("reached", {"what": what}),
        on_give_up=probe.stop,
        on_command=lambda: watching(plan),
    )
    return probe, observer


def _attach(framework: Framework, observer: Observer) -> Callable[[ModuleType], None]:
    return lambda module: framework.attach(module, observer)


def _call(plan: RunPlan) -> tuple[int, dict[str, Any]]:
    """Call the job; return the exit code and how it ended."""
    try:
        plan.body()
    except plan.skips as error:
        return 0, {"status": "skipped", "message": str(error)}
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        status = "finished" if code == 0 else "raised"
        return code, {"status": status, "message": f"SystemExit({error.code!r})", "traceback": _traceback(error)}
    except ProgramFailed as error:
        end = error.told(plan.folder, plan.output("stderr"))
        return 1, {"status": "raised", "traceback": _traceback(error), **end}
    except BaseException as error:  # noqa: BLE001 - torch's CheckpointException is not an Exception
        message = "".join(traceback.format_exception_only(error)).strip()
        return 1, {"status": "raised", "message": message, "traceback": _traceback(error)}
    return 0, {"status": "finished"}


def _traceback(error: BaseException) -> str:
    """Return the traceback from the job's own frame on."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None and frame.tb_frame.f_globals.get("__package__") in _OURS:
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame))


_OURS: Final = frozenset({"pytest_ckpt", "pytest_ckpt.runs"})


def _capture(plan: RunPlan) -> None:
    """Send log records and warnings to files; the supervisor has seen to stdout and stderr."""
    handler = logging.FileHandler(plan.output("log"), delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(levelname)-8s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    path = plan.output("warnings")

    def show(  # noqa: PLR0913, PLR0917 - the signature of warnings.showwarning
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: str | None = None,
    ) -> None:
        del file, line
        with path.open("a", encoding="utf-8") as output:
            output.write(f"{filename}:{lineno}: {category.__name__}: {message}\n")

    warnings.showwarning = show
    # The hooks on modules that torch warns of here are the probe's, which knows of it; the job's filters may make it an error.
    warnings.filterwarnings("ignore", message=r"Using `torch\.compile\(module\)` when there are global hooks")


def _seed(seed: int) -> None:
    """Seed every global random generator of the process."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def _finish_threads() -> None:
    """Wait for threads and processes that still save, as the interpreter does at its end."""
    shutdown = getattr(threading, "_shutdown", None)
    if shutdown is not None:
        shutdown()
    for child in multiprocessing.active_children():
        if not child.daemon and child._parent_pid == os.getpid():  # type: ignore[attr-defined]  # noqa: SLF001 - not pytest's own
            child.join()


def _save_coverage() -> None:
    """Save what a coverage measurement saw here, where each process has a data file of its own."""
    coverage = sys.modules.get("coverage")
    current = coverage.Coverage.current() if coverage is not None else None
    if current is not None and current.get_option("run:parallel") and not hasattr(os._exit, "__wrapped__"):
        current.stop()
        current.save()
