"""The training loop that the inner sessions test: four steps, saved after every second, and what may be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jobs import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ckpt import Job


def train(  # noqa: PLR0913 - each may be wrong by itself
    job: Job,
    *,
    last: int = 4,
    every: int = 2,
    save_last: bool = True,
    forget: Iterable[str] = (),
    folder: Path | None = None,
) -> int:
    """Train a small network, resumed where the job is, and return the steps done here.

    Args:
        last: the last step.
        every: saves after every so many steps.
        save_last: whether the last step is saved in any case.
        forget: the parts left out of each checkpoint: `model`, `optimizer` or `step`.
        folder: where to save, by default the job's directory.
    """
    model = plain.network(dropout=0.0, norm=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    parts: dict[str, torch.nn.Module | torch.optim.Optimizer] = {"model": model, "optimizer": optimizer}
    first = _load(job, parts)
    for step in range(first + 1, last + 1):
        inputs, targets = plain.batch(step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        if step % every == 0 or (save_last and step == last):
            state = {name: part.state_dict() for name, part in parts.items() if name not in set(forget)}
            path = (folder or job.path) / f"step_{step}.pt"
            torch.save({**state, "step": 0 if "step" in set(forget) else step}, path)
    return last - first


def _load(job: Job, parts: dict[str, torch.nn.Module | torch.optim.Optimizer]) -> int:
    """Load what `resume_from` names, and return its step."""
    if job.resume_from is None:
        return 0
    state = torch.load(Path(job.resume_from), weights_only=True)
    for name, part in parts.items():
        if name in state:
            part.load_state_dict(state[name])
    return int(state["step"])
