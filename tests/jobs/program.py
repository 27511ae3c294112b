"""A program that trains, alone or as one of several ranks, and saves every second step by one rank or by all."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist

_WIDTH = 8
#: This program, and what starts two ranks of it.
PROGRAM: Final = Path(__file__)
TORCHRUN: Final = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def main() -> None:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--forget", action="store_true")
    parser.add_argument("--place", default="")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--fail", action="store_true")
    arguments = parser.parse_args()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    train = _saved_by_all if arguments.place else _saved_by_one
    train(arguments)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
        gc.collect()  # else a thread of gloo may outlive Python, and abort the process
    sys.exit(3 if arguments.fail else 0)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _prepared() -> tuple[torch.nn.Module, torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(_WIDTH, _WIDTH)
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
    return model, wrapped, torch.optim.AdamW(model.parameters(), lr=0.01)


def _step(wrapped: torch.nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    batch = torch.randn(4, _WIDTH, generator=torch.Generator().manual_seed(10 * number + _rank()))
    wrapped(batch).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def _saved_by_one(arguments: argparse.Namespace) -> None:
    model, wrapped, optimizer = _prepared()
    done = 0
    if arguments.checkpoint is not None:
        state = torch.load(arguments.checkpoint)
        model.load_state_dict(state["model"])
        if not arguments.forget:
            optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    for step in range(done + 1, arguments.steps + 1):
        _step(wrapped, optimizer, step)
        if step % 2 == 0 and _rank() == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, arguments.out / f"step_{step}.pt")


def _saved_by_all(arguments: argparse.Namespace) -> None:
    dcp: Any = importlib.import_module("torch.distributed.checkpoint")
    model, wrapped, optimizer = _prepared()
    done = 0
    found = sorted(path.parent for path in arguments.out.glob("*/.metadata"))
    if arguments.search and found:
        state: dict[str, Any] = {"model": model.state_dict(), "step": torch.tensor(0)}
        dcp.load(state, checkpoint_id=found[-1])
        model.load_state_dict(state["model"])
        done = int(state["step"])
    for step in range(done + 1, arguments.steps + 1):
        _step(wrapped, optimizer, step)
        if step % 2 == 0:
            state = {"model": model.state_dict(), "step": torch.tensor(step)}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is there already
                dcp.save(state, checkpoint_id=arguments.out / arguments.place.format(step))


if __name__ == "__main__":
    main()
