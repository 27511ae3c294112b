"""The whole schedule of a Lightning Trainer: the same verdicts as of the real run, and what a rehearsal can't stand for."""

from __future__ import annotations

import importlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

pytest.importorskip("lightning.pytorch")
from jobs import pl
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.contracts.best_model import Best
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps

if TYPE_CHECKING:
    from conftest import Judge
    from pytest_ckpt import Job

pytestmark = pytest.mark.filterwarnings("default")  # Lightning has deprecations of its own

PACKAGE: Final = "lightning.pytorch"
#: What validations answer: best after the first epoch.
SCORES: Final = (0.1, 1.1, 2.1, 3.1, 4.1)


def fit(job: Job, *, saving: dict[str, Any], rehearsed: bool = True, module: Any = None, **given: Any) -> None:
    """Train, or rehearse, three epochs of five steps."""
    package, asked = given.pop("package", PACKAGE), {"world_size": given.pop("world_size", 1)}
    lightning = importlib.import_module(package)
    callbacks = [pl.checkpoint(package, **saving)]
    if given.pop("stop", False):
        callbacks.append(importlib.import_module(f"{package}.callbacks").EarlyStopping("score", patience=1))
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(default_root_dir=job.dir, callbacks=callbacks, **{"max_epochs": 3, **quiet, **given})
    model = pl.model(package, scores=lambda epoch: SCORES[epoch]) if module is None else module
    parts = model, pl.loader(), pl.loader()
    if rehearsed:
        job.rehearse(trainer, *parts, metric={"score": SCORES}, **asked)
    else:
        trainer.fit(*parts)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"saving": {"every_n_train_steps": 5, "save_top_k": -1}}, id="every five steps"),
        pytest.param({"saving": {"every_n_train_steps": 4, "save_top_k": -1}}, id="an interval that does not fit"),
        pytest.param({"saving": {"monitor": "score", "save_top_k": 1, "save_last": True}}, id="PL-05"),
        pytest.param(
            {"saving": {"monitor": "score", "every_n_train_steps": 2, "save_top_k": -1}, "max_epochs": 2}, id="PL-07"
        ),
        pytest.param(
            {"saving": {"every_n_epochs": 2, "save_top_k": -1}, "max_epochs": 5}, id="every second of five epochs"
        ),
        pytest.param({"saving": {"every_n_epochs": 1, "save_top_k": -1}, "max_epochs": 5}, id="every epoch"),
        pytest.param({"saving": {"every_n_train_steps": 4, "save_top_k": -1}, "stop": True}, id="an early stop"),
        pytest.param({"saving": {"monitor": "score", "mode": "max", "save_top_k": 2}}, id="the two best"),
        pytest.param({"saving": {}, "max_steps": 11, "max_epochs": -1}, id="a number of steps"),
    ],
)
def test_the_verdicts_are_those_of_the_real_run(judge: Judge, given: dict[str, Any]) -> None:
    """Found where the real run has it, and silent where that has nothing, word for word."""
    contracts = FinalStep(), Steps(), Count(None), Retention(), Best(), Aligned()
    real = judge(partial(fit, rehearsed=False, **given), *contracts)
    ours = judge(partial(fit, **given), *contracts)
    assert {name: (verdict.status, verdict.sentence) for name, verdict in real.items()} == {
        name: (verdict.status, verdict.sentence) for name, verdict in ours.items()
    }


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_what_is_said_of_it(judge: Judge, package: str) -> None:
    """In both packages what was replaced is listed, and nothing is said of what checkpoints hold."""
    job = partial(fit, saving={"every_n_train_steps": 5, "save_top_k": -1}, package=package, world_size=2)
    verdicts = judge(job, Steps([5]), Resumable())
    assert ("held", "not_applicable") == tuple(verdict.status for verdict in verdicts.values()), verdicts
    assert judge.baseline.last_step == 9  # 10 of the 20 samples for each of two processes
    replaced = "the steps of the model", "the optimizer", "the samples", "the values that are logged"
    assert verdicts["steps"].notes == (
        f"rehearsed with stand-ins for {', '.join(replaced)}; all else was the real loop",
        "evaluations answered: score 0.1, 1.1, 2.1, 3.1, 4.1",
        "the schedule is that of 2 processes, of which one was run",
    )


def module_that(what: str) -> Any:
    """Return a module with a hook that needs more than a rehearsal has."""
    lightning = importlib.import_module(PACKAGE)
    base: Any = type(pl.model(PACKAGE))

    class Net(base):  # type: ignore[misc]
        def on_train_batch_end(self, _: Any, batch: Any, number: int) -> None:
            if what == "reads a layer" and number > 0:
                assert self.net[0].weight.shape
            if what == "reads the parameters" and number > 0:
                assert sum(p.numel() for p in self.parameters())
            if what == "reads the batch" and number > 0:
                assert batch[0].shape

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            if what == "saves more":
                checkpoint["half"] = {name: value.half() for name, value in self.net.state_dict().items()}

    del lightning
    return Net()


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("reads a layer", "on_train_batch_end"),
        ("reads the parameters", "on_train_batch_end"),
        ("reads the batch", "on_train_batch_end"),
    ],
)
def test_what_meets_a_stand_in_is_named(judge: Judge, what: str, names: str) -> None:
    """Where a hook needs the real thing nothing is decided, and the hook is named."""
    job = partial(fit, saving={"every_n_train_steps": 5, "save_top_k": -1})
    verdict = judge(lambda j: job(j, module=module_that(what)), FinalStep())["final_step"]
    assert "inconclusive" == verdict.status, verdict
    assert names in verdict.sentence
    assert what.removesuffix(" a layer") in verdict.sentence.replace("reads 0 of a batch", "reads the batch")


def test_what_is_gathered_in_an_epoch(judge: Judge) -> None:
    """A module that keeps what its steps return, and averages it at the end of the epoch, has something to average."""
    base: Any = type(pl.model(PACKAGE))

    class Net(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.losses: dict[str, list[torch.Tensor]] = {"train": [], "val": []}

        def training_step(self, batch: Any, number: int) -> torch.Tensor:
            loss: torch.Tensor = super().training_step(batch, number)
            self.losses["train"].append(loss.detach())
            return loss

        def on_train_epoch_end(self) -> None:
            self.log("mean", torch.stack(self.losses["train"]).mean())
            self.losses["train"].clear()

        def validation_step(self, batch: Any, number: int) -> None:
            self.losses["val"].append(super().training_step(batch, number).detach())

        def on_validation_epoch_end(self) -> None:
            self.log("score", torch.stack(self.losses["val"]).mean())
            self.losses["val"].clear()

    job = partial(fit, saving={"monitor": "score", "mode": "max", "save_top_k": -1})
    verdicts = judge(lambda j: job(j, module=Net()), FinalStep(), Best())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, verdicts
    assert (5, 10, 15) == judge.baseline.saved_steps


def test_a_compiled_module(judge: Judge) -> None:
    """There is nothing to compile."""
    job = partial(fit, saving={"every_n_train_steps": 5, "save_top_k": -1})
    assert judge(lambda j: job(j, module=torch.compile(pl.model(PACKAGE))), FinalStep())["final_step"].status == "held"


def test_what_saves_more_is_none_of_it(judge: Judge) -> None:
    """While a checkpoint is saved, everything may be read."""
    job = partial(fit, saving={"every_n_train_steps": 5, "save_top_k": -1})
    assert judge(lambda j: job(j, module=module_that("saves more")), FinalStep())["final_step"].status == "held"


def by_hand(*, schedules: bool = False, every: int = 1) -> Any:
    """Return a module of two networks, whose optimizers it steps by itself; the second every so many batches."""
    base: Any = type(pl.two_optimizers(PACKAGE))

    class Pair(base):  # type: ignore[misc]
        batches = 0

        def training_step(self, batch: Any, _: int) -> None:
            self.batches += 1
            for net, update in zip((self.one, self.two), self.optimizers(), strict=True):
                if net is self.one or self.batches % every == 0:
                    self.manual_backward(torch.nn.functional.cross_entropy(net(batch[0]), batch[1]))
                    update.step()
                    update.zero_grad()
            for schedule in self.lr_schedulers() or []:
                schedule.step()

        def configure_optimizers(self) -> Any:
            updates = super().configure_optimizers()
            found = [torch.optim.lr_scheduler.StepLR(update, 5) for update in updates]
            return (updates, found) if schedules else updates

    return Pair()


@pytest.mark.parametrize("schedules", [False, True])
@pytest.mark.parametrize(("every", "status"), [(5, "violated"), (10, "held")])
def test_a_module_that_steps_by_itself(judge: Judge, every: int, status: str, *, schedules: bool) -> None:
    """Two optimizers count twice (bug PL-15): the same is said as of the real run."""

    def job(job: Job, *, rehearsed: bool) -> None:
        saving = {"every_n_train_steps": every, "save_top_k": -1}
        fit(job, saving=saving, module=by_hand(schedules=schedules), max_epochs=10, rehearsed=rehearsed)

    real = judge(partial(job, rehearsed=False), Count(None), FinalStep())
    ours = judge(partial(job, rehearsed=True), Count(None), FinalStep())
    assert [status, "held"] == [verdict.status for verdict in ours.values()], ours
    assert [verdict.sentence for verdict in real.values()] == [verdict.sentence for verdict in ours.values()]


def test_one_optimizer_by_hand(judge: Judge) -> None:
    """A single optimizer is not in a list."""
    base: Any = type(pl.model(PACKAGE))

    class Net(base):  # type: ignore[misc]
        automatic_optimization = False

        def training_step(self, batch: Any, number: int) -> None:
            update = self.optimizers()
            self.manual_backward(super().training_step(batch, number))
            update.step()
            self.lr_schedulers().step()

    saving = {"every_n_train_steps": 4, "save_top_k": -1}
    assert "held" == judge(partial(fit, saving=saving, module=Net(), max_epochs=10), Count(12))["count"].status
    assert 50 == judge.baseline.last_step


def test_a_module_that_steps_now_and_then(judge: Judge) -> None:
    """What differs from batch to batch can't be repeated."""
    job = partial(fit, saving={"every_n_train_steps": 5, "save_top_k": -1}, module=by_hand(every=3))
    verdict = judge(job, FinalStep())["final_step"]
    assert "inconclusive" == verdict.status
    assert "training_step of Pair does not step the same optimizers in each batch: numbers 0 in one, numbers 0, 1" in (
        verdict.sentence
    )


def test_the_weights_stay_as_they_were(judge: Judge) -> None:
    """A checkpoint has the stand-in alone, so that it is small."""

    def train(job: Job) -> None:
        fit(job, saving={"every_n_train_steps": 5, "save_top_k": -1, "dirpath": job.path, "filename": "{step}"})
        found = torch.load(job.path / "step=5.ckpt", weights_only=True)
        assert ["updates"] == list(found["state_dict"])

    assert judge(train, FinalStep())["final_step"].status == "held"
