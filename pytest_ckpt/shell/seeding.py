"""Seeding the global random generators of the pytest process for a test's fixtures, and putting them back."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

from pytest_ckpt.experiments.conditions import seed_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Seeding:
    """Seeds torch, numpy and random from a text; `restore` puts back the states from before."""

    def __init__(self, text: str) -> None:
        self._restore: list[Callable[[], None]] = []
        seed = seed_of(text)
        state = random.getstate()
        self._restore.append(lambda: random.setstate(state))
        random.seed(seed)
        if "numpy" in sys.modules:
            self._seed_numpy(seed)
        if "torch" in sys.modules:
            self._seed_torch(seed)

    def _seed_numpy(self, seed: int) -> None:
        import numpy as np  # imported already

        state = np.random.get_state()  # noqa: NPY002 - the global generator is what fixtures use
        self._restore.append(lambda: np.random.set_state(state))  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002

    def _seed_torch(self, seed: int) -> None:
        import torch  # imported already

        state = torch.get_rng_state()
        self._restore.append(lambda: torch.set_rng_state(state))
        torch.manual_seed(seed)

    def restore(self) -> None:
        """Put back the states from before."""
        for action in self._restore:
            action()
