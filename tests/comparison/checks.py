"""The checks of pytest-torch that apply to a job, as much of its own saving and loading in them as they can take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest_torch  # type: ignore[import-not-found,unused-ignore]  # has an environment of its own
import torch

from jobs import hf, pl, plain
from pytest_ckpt.frameworks import builtin
from pytest_ckpt.runs.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from comparison.cases import Case

STEPS: Final = 10
_LIGHTNING: Final = "lightning.pytorch"
_SUFFIXES: Final = (".safetensors", ".ckpt", ".pt")


def applicable(case: Case) -> Iterator[tuple[str, Callable[[Case, Path], None]]]:
    """Yield the checks that say anything about a job, with their names in pytest-torch."""
    if case.train is None:
        return
    yield "assert_checkpoint_loads", loads
    if not case.bug.id.startswith("PL"):  # whose modules have no `forward`
        yield "assert_checkpoint_roundtrip", survives
    if case.bug.contract == "resumable":
        yield "assert_resume_equivalent", resumes


def loads(case: Case, directory: Path) -> None:
    """Train, then check that the newest checkpoint fits the model.

    Raises:
        AssertionError: pytest-torch says that it does not.
    """
    case.prepare(directory)
    assert case.train is not None
    case.train(Job(directory, frameworks=builtin()))
    newest = max(_weights(directory), key=lambda path: (path.stat().st_mtime_ns, path.name))
    pytest_torch.assert_checkpoint_loads(_model(case, directory), _read(newest))


def survives(case: Case, directory: Path) -> None:
    """Check that the model survives saving and loading.

    Raises:
        AssertionError: pytest-torch says that it does not.
    """
    inputs = plain.batch(1)[0] if case.bug.id.startswith("PT") else {"x": torch.randn(4, 4)}
    pytest_torch.assert_checkpoint_roundtrip(_model(case, directory), inputs)


def resumes(case: Case, directory: Path) -> None:
    """Check that stopping, saving, loading and going on changes nothing.

    The step, the batches and their order are the test's own: the check takes no Trainer, so of one it gets the methods
    that save and load.

    Raises:
        AssertionError: pytest-torch says that it does.
    """
    if case.bug.id.startswith("HF"):
        _resume_hf(case, directory)
    elif case.bug.id.startswith("PL"):
        _resume_lightning(case, directory)
    else:
        _resume_plain(directory)


def _weights(directory: Path) -> list[Path]:
    names = ("optimizer", "scheduler", "rng_state", "training_args", "scaler")
    return [path for path in directory.rglob("*") if path.suffix in _SUFFIXES and not path.name.startswith(names)]


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, weights_only=False)  # the job's own file


def _model(case: Case, directory: Path) -> Callable[[], Any]:
    """Return what makes the job's model."""
    if case.bug.id.startswith("PT"):
        return plain.network
    if case.bug.id.startswith("HF"):
        return lambda: hf.Net(hf.Config())
    module = _captured(case, directory, pl, "fit").get("module")
    return (lambda: pl.two_optimizers(_LIGHTNING)) if hasattr(module, "two") else _lightning_model(module)


def _lightning_model(module: Any) -> Callable[[], Any]:
    dropout = 0.0 if module is None else module.net[2].p
    return lambda: pl.model(_LIGHTNING, dropout=dropout)


def _captured(case: Case, directory: Path, module: Any, name: str) -> dict[str, Any]:
    """Return the keyword arguments with which a job calls a function of its module, instead of training; none if it does not."""
    assert case.train is not None
    with mock.patch.object(module, name) as called:
        case.train(Job(directory, frameworks=builtin()))
    return dict(called.call_args.kwargs) if called.called else {}


def _resume_hf(case: Case, directory: Path) -> None:
    given = _captured(case, directory, hf, "run")

    def make_setup() -> Any:
        trainer = hf.trainer(Job(directory, frameworks=builtin()), **given)
        trainer.create_optimizer_and_scheduler(STEPS)
        setup = pytest_torch.TrainingSetup(trainer.model, trainer.optimizer, trainer.lr_scheduler)
        setup.trainer = trainer
        return setup

    batches = list(make_setup().trainer.get_train_dataloader())
    pytest_torch.assert_resume_equivalent(make_setup, batches, _hf_step, steps=STEPS, save=_hf_save, load=_hf_load)


def _hf_step(setup: Any, batch: Any) -> Any:
    loss = setup.model(**batch)["loss"]
    loss.backward()
    setup.optimizer.step()
    setup.scheduler.step()
    setup.optimizer.zero_grad()
    return loss.detach()


def _hf_save(setup: Any, _: Path) -> None:
    """Save as the Trainer does, and tell its callbacks."""
    trainer = setup.trainer
    trainer.state.global_step = STEPS // 2
    trainer._save_checkpoint(trainer.model, None)  # noqa: SLF001 - there is no public way
    trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


def _hf_load(setup: Any, _: Path) -> None:
    """Load as the Trainer does."""
    trainer = setup.trainer
    checkpoint = f"{trainer.args.output_dir}/checkpoint-{STEPS // 2}"
    trainer._load_from_checkpoint(checkpoint)  # noqa: SLF001 - as above
    trainer._load_optimizer_and_scheduler(checkpoint)  # noqa: SLF001
    trainer._load_rng_state(checkpoint)  # noqa: SLF001


def _resume_lightning(case: Case, directory: Path) -> None:
    """Use the step that pytest-torch makes of a module, and the checkpoints of a Trainer that was set up for it."""
    make_plain, step = pytest_torch.from_lightning(_model(case, directory), epoch_length=pl.EPOCH)
    batches = _captured(case, directory, pl, "fit").get("accumulate_grad_batches", 1)

    def make_setup() -> Any:
        setup = make_plain()
        setup.trainer = _set_up(setup)
        return setup

    pytest_torch.assert_resume_equivalent(
        make_setup,
        list(pl.loader()),
        step if batches == 1 else _accumulating(batches),
        steps=STEPS,
        save=_lightning_save,
        load=_lightning_load,
    )


def _accumulating(batches: int) -> Callable[[Any, Any], Any]:
    """Return the step of one batch in an accumulation, which pytest-torch does not make of a module."""

    def step(setup: Any, batch: Any) -> Any:
        loss = setup.model.training_step(batch, setup.step_index)
        (loss / batches).backward()
        if (setup.step_index + 1) % batches == 0:
            setup.optimizer.step()
            setup.optimizer.zero_grad()
        return loss.detach()

    return step


def _set_up(setup: Any) -> Any:
    """Return a Trainer as it is before its first step, with the optimizers and schedulers of the setup."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.trainer.states import TrainerFn

    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.state.fn = TrainerFn.FITTING
    setup.model.trainer = trainer
    trainer.strategy.connect(setup.model)
    trainer.strategy.setup_environment()
    trainer.strategy.setup(trainer)
    trainer.strategy.optimizers = list(setup.optimizers.values())
    for config, given in zip(trainer.lr_scheduler_configs, setup.lightning_schedulers, strict=True):
        config.scheduler = given["scheduler"]
    return trainer


def _lightning_save(setup: Any, path: Path) -> None:
    """Save as the Trainer does."""
    setup.trainer.save_checkpoint(path)


def _lightning_load(setup: Any, path: Path) -> None:
    """Load as the Trainer does when `fit` is given a path."""
    connector = setup.trainer._checkpoint_connector  # noqa: SLF001 - there is no public way but `fit`
    connector.resume_start(path)
    connector.restore_model()
    connector.restore_training_state()


def _resume_plain(directory: Path) -> None:
    """Use the loop's own functions, which leave the scheduler out."""

    def make_setup() -> Any:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        return pytest_torch.TrainingSetup(model, update, torch.optim.lr_scheduler.CosineAnnealingLR(update, STEPS))

    def saver(setup: Any) -> plain.Saver:
        parts = {"model": setup.model, "optimizer": setup.optimizer, "scheduler": setup.scheduler}
        job = Job(directory, frameworks=builtin())
        job._resume_from = str(directory / f"step_{STEPS // 2}.pt")  # noqa: SLF001 - as the engine sets it
        return plain.Saver(job, forget=["scheduler"], **parts)

    def step(setup: Any, batch: Any) -> Any:
        loss = torch.nn.functional.cross_entropy(setup.model(batch[0]), batch[1])
        loss.backward()
        setup.optimizer.step()
        setup.scheduler.step()
        setup.optimizer.zero_grad()
        return loss.detach()

    pytest_torch.assert_resume_equivalent(
        make_setup,
        lambda index: plain.batch(index + 1),
        step,
        steps=STEPS,
        save=lambda setup, _: saver(setup).save(STEPS // 2),
        load=lambda setup, _: saver(setup).load(),
    )
