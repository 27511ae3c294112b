"""Jobs of Lightning's Trainer, alike in every release from 2.4 on and in both of its packages."""

from __future__ import annotations

import importlib
import random
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_ckpt import Job

VERSION: Final = tuple(int(part) for part in version("lightning").split(".")[:2])
SAMPLES: Final = 20
BATCH: Final = 4
#: Optimizer steps of an epoch.
EPOCH: Final = SAMPLES // BATCH


def samples() -> TensorDataset:
    """Return distinct samples of four numbers in two classes."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(SAMPLES, 4, generator=generator), torch.randint(2, (SAMPLES,), generator=generator)
    )


def loader(**given: Any) -> DataLoader[Any]:
    """Return a loader of the samples."""
    return DataLoader(samples(), **{"batch_size": BATCH, **given})


class PositionLoader:
    """A loader that remembers the place in its epoch, as Lightning asks of one that is to be resumed within it."""

    def __init__(self) -> None:
        self._given = self._start = 0
        self._batches = list(loader())

    def __iter__(self) -> Iterator[Any]:
        start, self._start = self._start, 0
        for place in range(start, len(self._batches)):
            self._given = place + 1
            yield self._batches[place]

    def __len__(self) -> int:
        return len(self._batches)

    def state_dict(self) -> dict[str, int]:
        """Return how many batches were given out."""
        return {"given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after those."""
        self._start = state["given"] % len(self)


def model(
    package: str,
    *,
    dropout: float = 0.0,
    norm: bool = True,
    gamma: float = 0.5,
    scores: Callable[[int], float] | None = None,
) -> Any:
    """Return a small LightningModule.

    Args:
        gamma: of a scheduler that steps once an epoch.
        scores: what a validation logs as `score`, by the number of epochs done.
    """
    lightning = importlib.import_module(package)

    class Net(lightning.LightningModule):  # type: ignore[name-defined,misc]
        """A classifier with batch norm and dropout."""

        def __init__(self) -> None:
            super().__init__()
            middle = torch.nn.BatchNorm1d(8) if norm else torch.nn.Tanh()
            layers = torch.nn.Linear(4, 8), middle, torch.nn.Dropout(dropout), torch.nn.Linear(8, 2)
            self.net = torch.nn.Sequential(*layers)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            """Return the loss."""
            return cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            """Log the loss, and the score that is asked for."""
            self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1]))
            if scores is not None:
                self.log("score", scores(self.current_epoch))

        def configure_optimizers(self) -> Any:
            """Return AdamW with a scheduler of epochs."""
            update = torch.optim.AdamW(self.parameters(), lr=0.01)
            return {"optimizer": update, "lr_scheduler": torch.optim.lr_scheduler.StepLR(update, 1, gamma)}

    return Net()


def two_optimizers(package: str) -> Any:
    """Return a module that is optimised by hand, by two optimizers in each step."""
    lightning = importlib.import_module(package)

    class Pair(lightning.LightningModule):  # type: ignore[name-defined,misc]
        """Two networks with an optimizer each."""

        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, _: int) -> None:
            """Update both."""
            for net, update in zip((self.one, self.two), self.optimizers(), strict=True):
                update.zero_grad()
                self.manual_backward(cross_entropy(net(batch[0]), batch[1]))
                update.step()

        def configure_optimizers(self) -> Any:
            """Return an optimizer for each network."""
            return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.one, self.two)]

    return Pair()


def by_closure(package: str) -> Any:
    """Return a module whose optimizer calls the training step itself, several times a step."""
    lightning = importlib.import_module(package)

    class Searched(lightning.LightningModule):  # type: ignore[name-defined,misc]
        """A linear classifier under LBFGS."""

        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(4, 2)

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            """Return the loss."""
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            """Return LBFGS."""
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    return Searched()


def random_states(package: str) -> Any:
    """Return a callback that saves and restores the states of the random generators."""
    lightning = importlib.import_module(package)

    class RandomStates(lightning.Callback):  # type: ignore[name-defined,misc]
        """Restores them as the checkpoint is loaded: right after that the loader is asked for its first epoch."""

        def state_dict(self) -> dict[str, Any]:
            """Return the states."""
            return {"torch": torch.get_rng_state(), "python": random.getstate()}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            """Put them in place."""
            torch.set_rng_state(state["torch"])
            random.setstate(state["python"])

    return RandomStates()


def checkpoint(package: str, **given: Any) -> Any:
    """Return a ModelCheckpoint."""
    return importlib.import_module(f"{package}.callbacks").ModelCheckpoint(**given)


def fit(
    package: str,
    job: Job,
    *callbacks: Any,
    module: Any = None,
    data: Any = None,
    validation: Any = None,
    **given: Any,
) -> Any:
    """Train, resume where the job says so, and return the trainer."""
    lightning = importlib.import_module(package)
    settings: dict[str, Any] = {"max_epochs": 3, "accelerator": "cpu", "logger": False, **given}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False}
    lightning.seed_everything(1, verbose=False)
    trainer = lightning.Trainer(default_root_dir=job.dir, callbacks=list(callbacks), **settings)
    loaders = [loader() if data is None else data, *([] if validation is None else [validation])]
    trainer.fit(
        model(package) if module is None else module, *loaders, ckpt_path="last" if job.restarting else job.resume_from
    )
    return trainer
