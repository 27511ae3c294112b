"""Averages that callbacks of Lightning keep have to be restored, and be saved where they become the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conftest import Judge
    from pytest_ckpt import Job

lightning: Any = pytest.importorskip("lightning.pytorch")
pytestmark = pytest.mark.filterwarnings("default")


class Net(lightning.LightningModule):  # type: ignore[misc]
    """A small network; `part` has training call what is in it, and not the whole."""

    def __init__(self, *, part: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        self._part = part

    def forward(self, batch: torch.Tensor) -> Any:
        """Return what the network makes of a batch."""
        return self.net(batch)

    def training_step(self, batch: list[torch.Tensor]) -> Any:
        """Return the loss."""
        return (self.net if self._part else self)(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Average(lightning.Callback):  # type: ignore[misc]
    """Keeps an average of the whole module's state in a dict, and saves it or does not."""

    def __init__(self, *, saved: bool) -> None:
        self._saved = saved
        self._average: dict[str, torch.Tensor] = {}

    def on_fit_start(self, _trainer: object, module: torch.nn.Module) -> None:
        """Begin with the weights, if none was loaded."""
        if not self._average:
            self._average = {name: value.clone() for name, value in module.state_dict().items()}

    def on_train_batch_end(self, _trainer: object, module: torch.nn.Module, *_: object) -> None:
        """Move towards the weights."""
        for name, value in module.state_dict().items():
            self._average[name].lerp_(value, 0.1)

    def state_dict(self) -> dict[str, Any]:
        """Return what is saved."""
        return {"average": self._average} if self._saved else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what was saved."""
        self._average = state["average"]


def fit(job: Job, module: Net, *callbacks: object, place: str = "") -> None:
    """Train three epochs of five steps, and save after each."""
    samples = torch.utils.data.TensorDataset(torch.arange(80.0).view(20, 4) / 80)
    trainer = lightning.Trainer(
        default_root_dir=job.path / place,
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, lightning.callbacks.ModelCheckpoint(every_n_epochs=1, save_top_k=-1)],
    )
    trainer.fit(module, torch.utils.data.DataLoader(samples, batch_size=4), ckpt_path=job.resume_from)


@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize("part", [True, False])
def test_a_callback_that_averages(judge: Judge, *, part: bool, saved: bool) -> None:
    """It copies the state of the whole module, of which training may call a part: names differ by what comes before."""
    verdict = judge(lambda job: fit(job, Net(part=part), Average(saved=saved)), Resumable())["resumable"]
    assert ("held" if saved else "violated") == verdict.status, str(judge)
    assert saved or "ema" == verdict.findings[0].component


def test_lightnings_own_callback(judge: Judge) -> None:
    """It saves its average and restores it; that the optimizer calls the model hides it from no first step."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    if not hasattr(callbacks, "EMAWeightAveraging"):
        pytest.skip("Lightning has it from 2.6 on")
    verdict = judge(lambda job: fit(job, Net(), callbacks.EMAWeightAveraging(decay=0.9)), Resumable())["resumable"]
    assert "held" == verdict.status, str(judge)


@pytest.mark.parametrize("last", [False, True])
def test_an_average_that_becomes_the_model_as_training_ends(judge: Judge, *, last: bool) -> None:
    """It is in no checkpoint, which costs the model that is returned, but not where another training goes on from it."""

    def train(job: Job) -> None:
        module = Net()
        average = lightning.callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1)
        fit(job, module, *([] if last else [average]), place="first")
        fit(job, module, *([average] if last else []), place="second")

    verdict = judge(train, FinalStep())["final_step"]
    assert ("violated" if last else "held") == verdict.status, str(judge)
