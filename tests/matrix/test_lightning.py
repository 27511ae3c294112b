"""No false alarm: correct jobs of Lightning's Trainer hold, in both packages."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from jobs import pl
from pytest_ckpt.contracts import builtin
from pytest_ckpt.contracts.logging_saves import Logged
from pytest_ckpt.contracts.moving import Relocatable
from pytest_ckpt.contracts.purity import Pure
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.stability import StableSchedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Contract, Job

pytestmark = pytest.mark.filterwarnings("default")

PACKAGES = [name for name in ("lightning.pytorch", "pytorch_lightning") if find_spec(name)]
#: Lightning 2.4 trains a batch twice after resuming from a save every so many steps, see PL-02 among the bugs.
RESUMES_STEPS = pytest.mark.skipif(pl.VERSION < (2, 5), reason="Lightning before 2.5 resumes such a checkpoint wrongly")
#: Settings under which every checkpoint lies at the end of an epoch, the last of them at the end of training.
EPOCHS: dict[str, Any] = {"every_n_epochs": 1, "save_top_k": -1}


def default_set(judge: Judge, train: Callable[[Job], object], **given: Any) -> dict[str, Any]:
    """Judge a job by the default set, and by what resumes tell beyond that."""
    contracts: list[Contract] = [one for kind in builtin() if (one := kind.default()) is not None]
    return judge(train, *contracts, StableSchedule(), Relocatable(), Pure(), Logged(), **given)


def assert_all_hold(
    judge: Judge, train: Callable[[Job], object], *, broken: tuple[str, ...] = (), **given: Any
) -> None:
    """Check that every contract holds or does not apply, but for what Lightning breaks and says."""
    found = default_set(judge, train, **given)
    assert set(broken) == {name for name, v in found.items() if v.status not in {"held", "not_applicable"}}, found
    assert "held" == found["resumable"].status


@pytest.mark.parametrize("package", PACKAGES)
def test_the_end_of_every_epoch(judge: Judge, package: str) -> None:
    """Each epoch is saved."""
    assert_all_hold(judge, lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS)))
    assert (5, 10, 15) == judge.baseline.saved_steps


@pytest.mark.parametrize("package", PACKAGES)
def test_the_default_callback(judge: Judge, package: str) -> None:
    """Without any arguments the newest epoch replaces the one before."""
    assert_all_hold(judge, lambda job: pl.fit(package, job))
    assert 1 == len(judge.baseline.kept)


@RESUMES_STEPS
def test_steps_that_meet_the_ends_of_epochs(judge: Judge) -> None:
    """Saving every so many steps holds where these are whole epochs."""
    every: dict[str, Any] = {"every_n_train_steps": pl.EPOCH, "save_top_k": -1}
    package = PACKAGES[0]
    assert_all_hold(judge, lambda job: pl.fit(package, job, pl.checkpoint(package, **every), max_steps=15))
    assert "held" == judge(lambda job: pl.fit(package, job, pl.checkpoint(package, **every)), Count(3))["count"].status


def test_validation_and_its_metric(judge: Judge) -> None:
    """The best two by a metric are kept, and the last one beside them; in another directory their scores are forgotten."""
    package = PACKAGES[0]

    def train(job: Job) -> None:
        best = pl.checkpoint(package, monitor="val_loss", save_top_k=2, filename="best-{epoch}-{step}")
        last = pl.checkpoint(package, filename="newest-{epoch}-{step}")
        pl.fit(package, job, best, last, validation=pl.loader())

    assert_all_hold(judge, train, broken=("relocatable",))


@pytest.mark.parametrize("save_last", [True, "link"])
def test_a_copy_or_link_of_the_last_one(judge: Judge, save_last: object) -> None:
    """`last.ckpt` beside the numbered checkpoints is another name, in a folder of the user's choice."""
    package = PACKAGES[0]

    def train(job: Job) -> None:
        pl.fit(package, job, pl.checkpoint(package, **EPOCHS, save_last=save_last, dirpath=job.path / "kept" / "here"))

    assert_all_hold(judge, train)


def test_two_optimizers_by_hand(judge: Judge) -> None:
    """Two optimizers make one step of a batch, which Lightning counts twice."""
    package = PACKAGES[0]
    train = lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS), module=pl.two_optimizers(package))  # noqa: E731
    assert_all_hold(judge, train)
    assert (15, 30) == (judge.baseline.last_step, judge.baseline.steps[-1].claimed)


def test_accumulated_gradients(judge: Judge) -> None:
    """A step takes several batches."""
    package = PACKAGES[0]
    train = lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS), accumulate_grad_batches=2)  # noqa: E731
    assert_all_hold(judge, train)
    assert 9 == judge.baseline.last_step


def test_half_precision(judge: Judge) -> None:
    """Mixed precision trains under autocast."""
    package = PACKAGES[0]
    train = lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS), precision="bf16-mixed")  # noqa: E731
    assert_all_hold(judge, train)


@RESUMES_STEPS
def test_a_loader_that_remembers_its_place(judge: Judge) -> None:
    """With a stateful loader a resume within an epoch goes on where it was."""
    package = PACKAGES[0]

    def train(job: Job) -> None:
        every = pl.checkpoint(package, every_n_train_steps=3, save_top_k=-1)
        pl.fit(package, job, every, data=pl.PositionLoader(), max_steps=12, max_epochs=-1)

    assert_all_hold(judge, train)


@RESUMES_STEPS
def test_random_states_that_a_callback_saves(judge: Judge) -> None:
    """Dropout and shuffling come back with a callback that saves the states of the generators."""
    package = PACKAGES[0]

    def train(job: Job) -> None:
        callbacks = pl.random_states(package), pl.checkpoint(package, **EPOCHS)
        pl.fit(package, job, *callbacks, module=pl.model(package, dropout=0.5), data=pl.loader(shuffle=True))

    assert_all_hold(judge, train)


def test_early_stopping(judge: Judge) -> None:
    """A run that stops early at the end of an epoch saves it, and its patience survives a resume."""
    package = PACKAGES[0]

    def train(job: Job) -> None:
        import importlib

        stopping = importlib.import_module(f"{package}.callbacks").EarlyStopping("score", patience=2)
        module = pl.model(package, scores=lambda epoch: float(epoch > 0))
        pl.fit(
            package,
            job,
            stopping,
            pl.checkpoint(package, **EPOCHS),
            module=module,
            validation=pl.loader(),
            max_epochs=9,
        )

    assert_all_hold(judge, train)
    assert 15 == judge.baseline.last_step


@RESUMES_STEPS
def test_a_trainer_is_driven_by_the_job(judge: Judge) -> None:
    """`job.train` fits, resumes and cuts the schedule."""
    import lightning.pytorch

    def train(job: Job) -> None:
        lightning.pytorch.seed_everything(1, verbose=False)
        callback = pl.checkpoint("lightning.pytorch", every_n_train_steps=5, save_top_k=-1)
        quiet: dict[str, Any] = {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
            "accelerator": "cpu",
        }
        trainer = lightning.pytorch.Trainer(default_root_dir=job.dir, callbacks=[callback], max_epochs=50, **quiet)
        job.train(trainer, pl.model("lightning.pytorch"), pl.loader(), max_steps=10)

    assert_all_hold(judge, train)
    assert 10 == judge.baseline.last_step


@RESUMES_STEPS
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("where", ["a callback", "after fit"])
def test_a_last_step_that_the_job_saves_itself(judge: Judge, package: str, where: str) -> None:
    """What the job saves beside a ModelCheckpoint is meant, though no setting promises it."""
    import importlib

    lightning = importlib.import_module(package)

    class SaveLast(lightning.Callback):  # type: ignore[name-defined,misc]
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            del pl_module
            trainer.save_checkpoint(f"{trainer.default_root_dir}/final-step={trainer.global_step}.ckpt")

    def train(job: Job) -> None:
        callbacks = pl.checkpoint(package, dirpath=job.dir, every_n_train_steps=10, save_top_k=-1), SaveLast()
        trainer = pl.fit(package, job, *callbacks[: 2 if where == "a callback" else 1])
        if where == "after fit":
            SaveLast().on_train_end(trainer, None)

    assert_all_hold(judge, train)
    assert (10, 15) == judge.baseline.saved_steps


def test_buffers_are_seen_in_a_closure(judge: Judge) -> None:
    """Lightning's forward passes run within the optimizer's step; running statistics are compared all the same."""
    judge(lambda job: pl.fit(PACKAGES[0], job))
    assert {"lightning.pytorch": "lightning", "pytorch_lightning": "pytorch_lightning"}[
        PACKAGES[0]
    ] == judge.baseline.frameworks[0].name
    assert any(key.endswith("running_mean") for key in judge.baseline.steps[1].state["buffers"])
    assert torch.is_grad_enabled()


def test_older_files_of_the_same_name(judge: Judge) -> None:
    """Beside a checkpoint of another run Lightning numbers a version; the older file is nobody's."""
    package = PACKAGES[0]
    older = judge.next_directory / "checkpoints" / "epoch=0-step=5.ckpt"
    older.parent.mkdir()
    torch.save({"state_dict": {}}, older)
    assert_all_hold(judge, lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS)))
    assert "checkpoints/epoch=0-step=5-v1.ckpt" in {checkpoint.path for checkpoint in judge.baseline.written}


def test_the_newest_of_each_name(judge: Judge) -> None:
    """Without a counter of versions one file is written over and over."""
    package = PACKAGES[0]

    def train(job: Job) -> None:
        pl.fit(package, job, pl.checkpoint(package, filename="newest", enable_version_counter=False))

    assert_all_hold(judge, train)


def test_an_optimizer_with_a_closure(judge: Judge) -> None:
    """LBFGS calls the training step several times in each of its own."""
    package = PACKAGES[0]
    train = lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS), module=pl.by_closure(package))  # noqa: E731
    assert_all_hold(judge, train)
    assert 15 == judge.baseline.last_step


def test_a_checkpoint_elsewhere_is_noticed(judge: Judge, tmp_path: Path) -> None:
    """A `dirpath` of its own leads outside of the job's directory; the message names where."""
    package = PACKAGES[0]
    train = lambda job: pl.fit(package, job, pl.checkpoint(package, **EPOCHS, dirpath=tmp_path / "elsewhere"))  # noqa: E731
    verdict = judge(train, FinalStep())["final_step"]
    assert ("violated", "training ended at step 15 and no checkpoint was saved") == (verdict.status, verdict.sentence)
    assert f"the job saved outside ckpt_job.dir: {tmp_path}/elsewhere/epoch=0-step=5.ckpt" in verdict.findings[0].cause
