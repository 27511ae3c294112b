"""LLaMA-Factory's own parser against what is read from its files here; has an environment of its own."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("llamafactory", reason="llamafactory is gigabytes; tox -e llamafactory installs it")
from pytest_ckpt.configs import read
from pytest_ckpt.contracts.scheduling import Steps
from rehearsal.test_config_files import Unread, written

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Job

pytestmark = pytest.mark.filterwarnings("default")

FILE: dict[str, Any] = {
    "model_name_or_path": "some/model",
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "template": "default",
    "dataset": "one",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 3.0,
    "save_steps": 50,
    "report_to": "none",
    "use_cpu": True,
}
MORE: dict[str, dict[str, Any]] = {
    "as it is": {},
    "by epochs": {"save_strategy": "epoch"},
    "a fraction": {"save_steps": 0.3},
    "validated": {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 25, "load_best_model_at_end": True},
    "a limit": {"save_total_limit": 2, "save_only_model": True},
    "steps": {"max_steps": 77, "logging_steps": 10},
}


def parsed(folder: Path, values: dict[str, Any]) -> Any:
    """Return the arguments of training as LLaMA-Factory parses them."""
    from llamafactory.hparams import get_train_args

    _, data, training, *_ = get_train_args({**values, "output_dir": str(folder)})
    return data, training


@pytest.mark.parametrize("changed", MORE.values(), ids=MORE)
def test_the_arguments_are_those_of_llamafactory(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """The rehearsed run saves when a Trainer with its own arguments saves."""
    from transformers import Seq2SeqTrainer

    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    values = {**FILE, **changed}
    schedule = read(written(tmp_path, values), dataset_len=400)

    def own(job: Job) -> None:
        import torch

        _, args = parsed(job.path, values)
        evaluation = Unread(8) if values.get("val_size") else None
        samples = Unread(400)
        job.rehearse(
            Seq2SeqTrainer(model=torch.nn.Linear(1, 1), args=args, train_dataset=samples, eval_dataset=evaluation)
        )

    assert 400 == schedule.train_len
    theirs = judge(own, Steps())["steps"]
    ours = judge(lambda job: job.rehearse_config(tmp_path / "train.yml", dataset_len=400), Steps())["steps"]
    assert ("held", "held") == (theirs.status, ours.status), (theirs, ours)
    assert theirs.sentence == ours.sentence


def test_its_split_for_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many samples are left as its own loader leaves."""
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    if find_spec("torchaudio") is None:  # imported beside the data sets, and not used for texts
        monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
    from datasets import Dataset
    from llamafactory.data.data_utils import split_dataset

    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps([{"instruction": "a"}] * 87), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"one": {"file_name": "one.json"}}), encoding="utf-8")
    for size in (0.07, 0.1, 0.33, 5):
        values = {**FILE, "dataset_dir": str(folder), "val_size": size, "eval_strategy": "steps"}
        data, training = parsed(tmp_path, values)
        samples = Dataset.from_dict({"a": list(range(87))})
        train, validation = split_dataset(samples, None, data, seed=training.seed)
        schedule = read(written(tmp_path, values))
        assert (len(train["train"]), len(validation["validation"])) == (schedule.train_len, schedule.eval_len), size
