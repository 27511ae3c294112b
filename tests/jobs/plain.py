"""Parts of plain torch loops: data whose order depends on the step alone, and saving and loading of whatever has a state."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt import Job

BATCH: Final = 4
FEATURES: Final = 6
CLASSES: Final = 3
SAMPLES: Final = 20


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Return distinct inputs and learnable targets, alike in every process."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(SAMPLES, FEATURES, generator=generator)
    return inputs, inputs[:, :CLASSES].argmax(dim=1)


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the batch of a step, counted from 1: each epoch has an order of its own."""
    per_epoch = SAMPLES // BATCH
    epoch, place = divmod(step - 1, per_epoch)
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(epoch))
    chosen = order[place * BATCH : (place + 1) * BATCH]
    inputs, targets = samples()
    return inputs[chosen], targets[chosen]


def network(*, dropout: float = 0.1, norm: bool = True, width: int = 8) -> torch.nn.Sequential:
    """Build a classifier with dropout and running statistics, from the global random generator as users do."""
    layers = [torch.nn.Linear(FEATURES, width), torch.nn.Tanh(), torch.nn.Dropout(dropout)]
    if norm:
        layers.insert(1, torch.nn.BatchNorm1d(width))
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, CLASSES))


class RandomStates:
    """The global random generators, as something that has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Return the states of torch's and Python's generators."""
        return {"torch": torch.get_rng_state(), "python": random.getstate()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        torch.set_rng_state(state["torch"])
        random.setstate(state["python"])


class Saver:
    """Saves named parts of a training state into one file a step, and loads them again.

    Args:
        parts: objects with `state_dict` and `load_state_dict`; the random states come along by themselves.
        forget: names of parts that are left out of the file; `step` forgets the counter.
    """

    def __init__(self, job: Job, *, forget: Iterable[str] = (), name: str = "step_{step}.pt", **parts: Any) -> None:
        self._job = job
        self._name = name
        known = {**parts, "rng": RandomStates()}
        unknown = set(forget) - set(known) - {"step"}
        assert not unknown, f"no part is called {unknown}"
        self.parts = {part: value for part, value in known.items() if part not in set(forget)}
        self._counts = "step" not in set(forget)

    def save(self, step: int) -> None:
        """Write everything into the file of a step."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({**state, "step": step if self._counts else 0}, self._job.path / self._name.format(step=step))

    def load(self) -> int:
        """Load what `resume_from` names, or in a restart the newest, and return the step to go on from; 0 for a new run."""
        path = start_from(self._job, self._name.format(step="*"))
        if path is None:
            return 0
        state = torch.load(path, weights_only=False)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])


def start_from(job: Job, pattern: str) -> str | None:
    """Return what to resume from: in a restart, of what fits the pattern, the path with the highest number."""
    if not job.restarting:
        return job.resume_from
    named = map(str, job.path.glob(pattern))
    return max(named, key=lambda path: int([0, *re.findall(r"[0-9]+", path.rpartition("/")[2])][-1]), default=None)


def steps(saver: Saver, last: int, every: int) -> Iterator[int]:
    """Yield the steps that are left to train, and save after every so many of them and after the last one."""
    for step in range(saver.load() + 1, last + 1):
        yield step
        if step % every == 0 or step == last:
            saver.save(step)
