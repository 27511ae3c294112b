"""Bugs that take a crash to show: each is found in the states that one leaves, and its twin survives them all."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from jobs import hf
from pytest_ckpt.contracts.crashing import CrashSafe, PowerSafe
from pytest_ckpt.crashes.stopping import why_not

if TYPE_CHECKING:
    from collections.abc import Callable

    from bugs.conftest import Shows
    from pytest_ckpt import Job

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be traced here")


def test_hf_18_what_a_kill_left_unfinished_fails_each_restart(shows: Shows) -> None:
    """Killed in a save, a run does not restart from the checkpoint before until somebody deletes the unfinished directory."""

    def train(job: Job) -> None:
        job.train(hf.trainer(job, max_steps=4, save_steps=2))

    shows("HF-18", train, CrashSafe())


def accelerated(limit: int) -> Callable[[Job], None]:
    """Return a loop that keeps so many checkpoints by accelerate's own names, and loads the newest that is whole."""

    def train(job: Job) -> None:
        accelerate: Any = importlib.import_module("accelerate")
        torch.manual_seed(0)
        kept = accelerate.utils.ProjectConfiguration(
            project_dir=str(job.dir), automatic_checkpoint_naming=True, total_limit=limit
        )
        accelerator = accelerate.Accelerator(project_config=kept, cpu=True)
        model, optimizer = accelerator.prepare(net := torch.nn.Linear(8, 1), torch.optim.SGD(net.parameters(), lr=0.1))
        done = 0
        if job.restarting and (found := whole(Path(job.dir, "checkpoints"))) is not None:
            accelerator.load_state(str(found))
            kept.iteration = int(found.name.partition("_")[2]) + 1
            done = 2 * kept.iteration
        for step in range(done + 1, 7):
            batch = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
            accelerator.backward(model(batch).pow(2).mean())
            optimizer.step()
            optimizer.zero_grad()
            if step % 2 == 0:
                accelerator.save_state()
                (Path(job.dir) / "checkpoints" / f"checkpoint_{step // 2 - 1}" / "done").touch()

    def whole(folder: Path) -> Path | None:
        found = [path.parent for path in folder.glob("checkpoint_*/done")]
        return max(found, key=lambda path: int(path.name.partition("_")[2]), default=None)

    return train


def test_acc_02_deletes_before_it_saves(shows: Shows) -> None:
    """With `total_limit=1` the old checkpoint is deleted before the new one is written: a kill between leaves none."""
    pytest.importorskip("accelerate", minversion="1.1")
    shows("ACC-02", accelerated(1), CrashSafe())
    shows.not_with(accelerated(2), CrashSafe())


class Net(torch.nn.Linear):
    """A model that mmengine's Runner can train."""

    def train_step(self, data: torch.Tensor, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        """Train on a batch."""
        loss = self(data).pow(2).mean()
        optim_wrapper.update_params(loss)
        return {"loss": loss.detach()}


def engined(limit: int) -> Callable[[Job], None]:
    """Return a run of mmengine that keeps so many checkpoints, and goes on from what `last_checkpoint` names."""

    def train(job: Job) -> None:
        engine: Any = importlib.import_module("mmengine.runner")
        torch.manual_seed(0)
        data: Any = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
        last = Path(job.dir, "last_checkpoint")
        if job.restarting and last.exists() and not last.read_text(encoding="utf-8"):
            # mmengine empties it before it writes it, and starts from no empty one; the newest checkpoint is whole by then
            last.write_text(str(max(Path(job.dir).glob("iter_*.pth"))), encoding="utf-8")
        saves = {"type": "CheckpointHook", "interval": 2, "by_epoch": False, "max_keep_ckpts": limit}
        engine.Runner(
            model=Net(8, 1),
            work_dir=str(job.dir),
            train_dataloader=torch.utils.data.DataLoader(data, batch_size=4),
            train_cfg={"type": "IterBasedTrainLoop", "max_iters": 6},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
            default_hooks={"checkpoint": saves, "logger": None},
            resume=job.restarting,
            log_level="ERROR",
            randomness={"seed": 0},
        ).train()

    return train


@pytest.mark.filterwarnings("default")  # mmengine calls what torch and Python have deprecated
def test_mm_01_deletes_before_it_saves(shows: Shows, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `max_keep_ckpts=1` the old checkpoint is deleted before the new one is written: a kill between leaves none."""
    pytest.importorskip("mmengine.runner", exc_type=ImportError)  # opencv may lack libraries of the system
    importlib.import_module("matplotlib.backends.backend_agg")  # once here, with the runner, not in each run
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # it loads its own files with a bare torch.load
    shows("MM-01", engined(1), CrashSafe())
    shows.not_with(engined(2), CrashSafe())


def distributed(place: Callable[[int], str]) -> Callable[[Job], None]:
    """Return a loop that saves by torch.distributed.checkpoint, and loads what has the file that is written last."""

    def train(job: Job) -> None:
        dcp: Any = importlib.import_module("torch.distributed.checkpoint")
        torch.manual_seed(0)
        model = torch.nn.Linear(16, 16)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        done = 0
        found = sorted(path.parent for path in Path(job.dir).glob("*/.metadata"))
        if job.restarting and found:
            state: dict[str, Any] = {"model": model.state_dict(), "step": torch.tensor(0)}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of that one process is enough
                dcp.load(state, checkpoint_id=found[-1])
            model.load_state_dict(state["model"])
            done = int(state["step"])
        for step in range(done + 1, 7):
            batch = torch.randn(4, 16, generator=torch.Generator().manual_seed(step))
            model(batch).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 2 == 0:
                saved = {"model": model.state_dict(), "step": torch.tensor(step)}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what is there already
                    dcp.save(saved, checkpoint_id=Path(job.dir, place(step)))

    return train


def test_pt_03_a_distributed_checkpoint_is_overwritten_in_place(shows: Shows) -> None:
    """Saved again under one `checkpoint_id`, the old metadata stand beside half-written data until the save has ended."""
    shows("PT-03", distributed(lambda _: "last"), CrashSafe())
    shows.not_with(distributed(lambda step: f"step{step}"), CrashSafe())


def test_pt_20_the_metadata_are_synced_before_they_are_written(shows: Shows) -> None:
    """`torch.distributed.checkpoint` calls fsync while the bytes of `.metadata.tmp` are still in a buffer of Python."""
    shows("PT-20", distributed(lambda step: f"step{step}"), PowerSafe())
