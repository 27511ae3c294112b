"""Jobs of two ranks, forked as launchers do it: data-parallel, with what is saved by one rank or by both."""

from __future__ import annotations

import contextlib
import copy
import importlib
import signal
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import multiprocessing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt import Job

_WIDTH = 8


def launch(main: Callable[..., None], *arguments: object) -> None:
    """Call a function in two processes that know each other; return when both have ended."""
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{folder}/store"
        multiprocessing.start_processes(_rank, (store, main, *arguments), nprocs=2, start_method="fork")  # type: ignore[attr-defined,no-untyped-call]


def _rank(rank: int, store: str, main: Callable[..., None], *arguments: object) -> None:
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    main(*arguments)
    dist.destroy_process_group()


def batch(step: int) -> torch.Tensor:
    """Return the batch of a step, which is another one for each rank."""
    return torch.randn(4, _WIDTH, generator=torch.Generator().manual_seed(10 * step + dist.get_rank()))


class Training:
    """A model on two ranks, trained step by step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.wrapped = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(_WIDTH, _WIDTH))
        self.model: torch.nn.Module = self.wrapped.module
        self.optimizer = torch.optim.AdamW(self.wrapped.parameters(), lr=0.01)

    def step(self, number: int) -> None:
        """Train one step."""
        self.wrapped(batch(number)).pow(2).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def saved_by_one(job: Job, *, steps: int = 6, optimizer: bool = True, fails: int | None = None) -> None:
    """Train; rank 0 saves every second step.

    Args:
        optimizer: whether a resume restores it.
        fails: the step in which rank 1 raises an error.
    """
    training, done = Training(), 0
    if job.resume_from is not None:
        state = torch.load(job.resume_from)
        training.model.load_state_dict(state["model"])
        if optimizer:
            training.optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    for step in range(done + 1, steps + 1):
        if step == fails and dist.get_rank() == 1:
            message = "rank 1 fails"
            raise RuntimeError(message)
        training.step(step)
        if step % 2 == 0 and dist.get_rank() == 0:
            state = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict(), "step": step}
            torch.save(state, Path(job.dir, f"step_{step}.pt"))
        dist.barrier()


def saved_by_both(job: Job, place: str) -> None:
    """Train, and save every second step by torch.distributed.checkpoint, at a place that may name the step.

    A restart goes on from what has the file that is written last.
    """
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")
    training, done = Training(), 0
    found = sorted(path.parent for path in Path(job.dir).glob("*/.metadata"))
    if job.restarting and found:
        state: dict[str, Any] = {"model": training.model.state_dict(), "step": torch.tensor(0)}
        dcp.load(state, checkpoint_id=found[-1])
        training.model.load_state_dict(state["model"])
        done = int(state["step"])
    for step in range(done + 1, 7):
        training.step(step)
        if step % 2 == 0:
            state = {"model": training.model.state_dict(), "step": torch.tensor(step)}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is there already
                dcp.save(state, checkpoint_id=Path(job.dir, place.format(step)))


def saved_by_each(job: Job, *, place: str = "step_{}", steps: int = 6) -> None:
    """Train; each rank saves every second step in a file of its own, and rank 1 does so while rank 0 is still in the step."""
    training = Training()
    for step in range(1, steps + 1):
        training.wrapped(batch(step)).pow(2).mean().backward()
        if step % 2 == 0 and dist.get_rank() == 0:
            time.sleep(0.2)
        training.optimizer.step()
        training.optimizer.zero_grad()
        if step % 2 == 0:
            folder = Path(job.dir, place.format(step))
            folder.mkdir(exist_ok=True)
            state = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict(), "step": step}
            torch.save(state, folder / f"rank{dist.get_rank()}.pt")
            dist.barrier()


def saved_by_thread(job: Job, *, copies: bool = False) -> None:
    """Train; rank 0 saves every second step in a thread, and waits for the last one only."""
    training = Training()
    begun: list[threading.Thread] = []
    for step in range(1, 9):
        training.step(step)
        if step % 2 == 0 and dist.get_rank() == 0:
            state = {"model": training.model.state_dict(), "step": step}
            path = Path(job.dir, f"step_{step}.pt")
            begun.append(threading.Thread(target=torch.save, args=(copy.deepcopy(state) if copies else state, path)))
            begun[-1].start()
        dist.barrier()
    for thread in begun:
        thread.join()


def preempted(job: Job, *, by: int | None = None) -> None:
    """Train; both ranks leave after the step in which one was sent SIGTERM, and rank 0 saves then.

    Args:
        by: the only rank that asks whether it was sent one; None for both.
    """
    asked = torch.zeros(1)
    signal.signal(signal.SIGTERM, lambda *_: asked.fill_(by is None or by == dist.get_rank()))
    training, done = Training(), 0
    newest = max(Path(job.dir).glob("step_*.pt"), key=lambda path: int(path.stem[5:]), default=None)
    checkpoint = job.resume_from or (newest if job.restarting else None)
    if checkpoint is not None:
        state = torch.load(checkpoint)
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    for step in range(done + 1, 13):
        training.step(step)
        agreed = asked.clone()
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
        if (step % 5 == 0 or agreed) and dist.get_rank() == 0:
            state = {"model": training.model.state_dict(), "optimizer": training.optimizer.state_dict(), "step": step}
            part = Path(job.dir, "part")
            torch.save(state, part)
            part.replace(Path(job.dir, f"step_{step}.pt"))
        if agreed:
            return


def saved_heedlessly(job: Job) -> None:
    """Train; rank 0 saves every second step, and goes on where it can't."""
    training = Training()
    for step in range(1, 7):
        training.step(step)
        if step % 2 == 0 and dist.get_rank() == 0:
            with contextlib.suppress(OSError, RuntimeError):
                torch.save({"model": training.model.state_dict(), "step": step}, Path(job.dir, f"step_{step}.pt"))
        dist.barrier()
