"""How runs are started: in forked processes where that can serve, one at a time or side by side."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from pytest_ckpt.runs import mounts
from pytest_ckpt.runs.child import RunPlan, run_job
from pytest_ckpt.runs.journal import events
from pytest_ckpt.runs.supervise import GRACE, first_to_end, run_spawned, start_forked
from pytest_ckpt.runs.tracing import tracing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.runs.processes import Ended
    from pytest_ckpt.runs.supervise import ForkedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Starts the processes of runs and sees them to their end.

    Attributes:
        timeout: seconds that one run may take.
        start_method: `fork`, `spawn`, or `auto` for fork where it can serve.
        processes: how many runs may go on at a time.
        frameworks: are warmed up before each fork.
        reseed: whether a forked process is seeded; otherwise it keeps the random state it was forked with.
        waiting: called about five times a second with the journal of a run that goes on alone.
    """

    timeout: float
    start_method: str
    processes: int
    frameworks: Sequence[Framework]
    reseed: bool
    waiting: Callable[[Path], None] | None = None

    @contextmanager
    def run(self, plan: RunPlan) -> Iterator[tuple[Ended, str]]:
        """Run a plan alone, and tell how it ended and was started; a hang before the first step is tried again without fork.

        What is left of its process goes while the caller looks at what the run left.
        """
        if not self._can_fork():
            yield self._spawn(plan), "spawn"
            return
        with closing(self._fork(plan)) as run:
            self.can_run_side_by_side()  # found out once, while something else goes on anyway
            ended = run.end(self._waiting(plan))
            if self.start_method == "fork" or not ended.timed_out or _has_begun(plan):
                yield ended, "fork"
                return
        plan.journal.unlink(missing_ok=True)
        yield self._spawn(plan), "spawn, after a hang under fork"

    def can_run_side_by_side(self) -> bool:
        """Say whether several plans can be run at a time, each with its own directory at the path of all."""
        return self.processes > 1 and self._can_fork() and mounts.available()

    def side_by_side(self, plans: Iterable[RunPlan]) -> Generator[tuple[RunPlan, Ended]]:
        """Run plans, each of which says where its directory lies, and yield them as they end.

        The next plan is asked for while the others run, so that it can start as soon as there is room. Closing the iterator
        kills what still runs.
        """
        running: dict[ForkedRun, RunPlan] = {}
        waiting = iter(plans)
        try:
            running.update((self._fork(plan), plan) for plan in islice(waiting, self.processes))
            upcoming = next(waiting, None)
            while running:
                run = first_to_end(list(running))
                ended = run.end()
                if upcoming is not None:
                    running[self._fork(upcoming)] = upcoming
                    upcoming = next(waiting, None)
                yield running[run], ended
                run.close()
                del running[run]
        finally:
            for run in running:
                run.close()

    # -- one process -------------------------------------------------------------------------------------------------

    def _fork(self, plan: RunPlan) -> ForkedRun:
        from pytest_ckpt.runs import probe, saves  # noqa: F401 - imported once here, with torch, not in each child

        for framework in self.frameworks:
            if framework.module in sys.modules:
                framework.warm_up(sys.modules[framework.module])
        body = partial(run_job, plan if self.reseed else replace(plan, seed=None))
        stdout, stderr = plan.output("stdout"), plan.output("stderr")
        return start_forked(
            body, timeout=self.timeout, stdout=stdout, stderr=stderr, grace=_grace(plan), tracing=tracing_of(plan)
        )

    def _spawn(self, plan: RunPlan) -> Ended:
        stdout, stderr = plan.output("stdout"), plan.output("stderr")
        waiting = self._waiting(plan)
        return run_spawned(
            run_job,
            (plan,),
            timeout=self.timeout,
            stdout=stdout,
            stderr=stderr,
            grace=_grace(plan),
            waiting=waiting,
            tracing=tracing_of(plan),
        )

    def _waiting(self, plan: RunPlan) -> Callable[[], None] | None:
        return None if self.waiting is None else partial(self.waiting, plan.journal)

    def _can_fork(self) -> bool:
        """Say whether a forked process can train: not where there is no fork, nor after CUDA was used here."""
        if self.start_method != "auto":
            return self.start_method == "fork"
        if sys.platform != "linux":
            return False
        import torch  # it is imported already

        return not bool(torch.cuda.is_initialized())


def _grace(plan: RunPlan) -> float:
    """Return how many seconds processes get that the job has left behind: none where it is seen what it had waited for."""
    return GRACE if plan.slowness is None else 0.0


def _has_begun(plan: RunPlan) -> bool:
    """Say whether a run has come to its first step."""
    return any(event == "tick" for event, _ in events(plan.journal))
