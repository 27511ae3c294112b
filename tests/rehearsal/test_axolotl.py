"""Axolotl's own code against the rules that stand for it elsewhere, and its own trainer; has an environment of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

pytest.importorskip("axolotl", reason="axolotl is gigabytes; tox -e axolotl installs it")
from pytest_ckpt.configs import axolotl, axolotl_own, read
from pytest_ckpt.configs.files import read_file
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.contracts.saving import Count, FinalStep
from rehearsal.test_config_files import RULES, SEED, SEED_LENGTH, Unread, written

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Job

pytestmark = pytest.mark.filterwarnings("default")
MORE: dict[str, dict[str, Any]] = {
    "steps said": {"max_steps": 100},
    "by epochs": {"saves_per_epoch": None, "save_strategy": "epoch", "val_set_size": 0.05, "eval_strategy": "epoch"},
    "the best alone": {
        "saves_per_epoch": None,
        "save_strategy": "best",
        "val_set_size": 0.1,
        "metric_for_best_model": "eval_loss",
    },
    "three epochs": {"num_epochs": 3, "saves_per_epoch": 4},
    "early stopping": {
        "val_set_size": 0.1,
        "eval_steps": 50,
        "save_steps": 100,
        "saves_per_epoch": None,
        "early_stopping_patience": 2,
    },
    "drops the rest": {"dataloader_drop_last": True, "save_only_model": True},
}


@pytest.mark.parametrize("world_size", [1, 4])
@pytest.mark.parametrize("changed", [*(changed for changed, _ in RULES.values()), *MORE.values()], ids=[*RULES, *MORE])
def test_the_rules_are_those_of_axolotl(tmp_path: Path, changed: dict[str, Any], world_size: int) -> None:
    """What its own code makes of a configuration is what the rules make of it."""
    path = written(tmp_path, {**SEED, **changed})
    given = read_file(path, dataset_len=SEED_LENGTH, world_size=world_size)
    held_out = read(path, dataset_len=SEED_LENGTH, world_size=world_size).eval_len
    ours, _ = axolotl.by_rule(given, SEED_LENGTH, held_out)
    own = axolotl_own.resolve(given.values, train_len=SEED_LENGTH, held_out=held_out, world_size=world_size)
    said_nothing = {"eval_strategy": "no"}  # by the Trainer's own default
    assert {name: own.get(name) or said_nothing.get(name, own.get(name)) for name in ours} == ours
    assert {name for name, value in own.items() if value is not None and name.startswith(("save", "eval"))} <= {
        *ours,
        "save_only_model",
    }


def test_its_own_code_is_used(judge: Judge, tmp_path: Path) -> None:
    """The present version saves the last step, and the interval still does not fit."""
    path = written(tmp_path, SEED)
    found = judge(lambda job: job.rehearse_config(path, dataset_len=SEED_LENGTH), FinalStep(), Aligned())
    assert ("held", "violated") == tuple(verdict.status for verdict in found.values()), found
    assert "ceil(1578/4) = 395" in found["aligned"].findings[0].cause
    assert "resolved by Axolotl" in " ".join(found["final_step"].notes)


def test_its_own_trainer(judge: Judge, tmp_path: Path) -> None:
    """The trainer that Axolotl has, with the arguments that it makes: 1578 steps, saved every 395 and once more at the end."""
    from axolotl.core.trainers.base import AxolotlTrainer
    from axolotl.core.training_args import AxolotlTrainingArguments

    def job(job: Job, saves_per_epoch: int) -> None:
        values = yaml.safe_load(written(tmp_path, {**SEED, "saves_per_epoch": saves_per_epoch}).read_text())
        own = axolotl_own.resolve(values, train_len=SEED_LENGTH, held_out=0, world_size=1)
        args = AxolotlTrainingArguments(
            output_dir=job.dir, use_cpu=True, report_to=[], **{**own, "save_total_limit": 9}
        )
        trainer = AxolotlTrainer(model=torch.nn.Linear(1, 1), args=args, train_dataset=Unread(SEED_LENGTH))
        job.rehearse(trainer)

    found = judge(lambda one: job(one, 2), FinalStep(), Aligned(), Count(4))
    assert ("held", "violated", "held") == tuple(verdict.status for verdict in found.values()), found
    assert (395, 790, 1185, 1578) == judge.baseline.saved_steps
    found = judge(lambda one: job(one, 3), FinalStep(), Aligned(), Count(6))
    assert {"held"} == {verdict.status for verdict in found.values()}, found
