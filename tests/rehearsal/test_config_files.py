"""Configuration files of training programs: what is read from them, what a rehearsal says of it, and bad input."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from torch.utils.data import Dataset

from jobs import hf
from pytest_ckpt import command
from pytest_ckpt.configs import read
from pytest_ckpt.contracts.alignment import Aligned
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Contract, Verdict

pytestmark = pytest.mark.filterwarnings("default")

#: The configuration with which this project began: 1578 steps in two epochs.
SEED: dict[str, Any] = {
    "base_model": "some/model",
    "datasets": [{"path": "some/data", "type": "alpaca"}],
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 2,
    "saves_per_epoch": 2,
    "val_set_size": 0,
    "learning_rate": "2e-4",
    "bf16": "auto",
}
SEED_LENGTH = 1578 * 8 // 2


class Unread(Dataset[Any]):
    """As long as asked for; what is in it does not matter."""

    column_names = ()

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return {"index": index}


def written(folder: Path, values: dict[str, Any], name: str = "train.yml") -> Path:
    """Write a file of YAML, or of JSON by its name."""
    path = folder / name
    text = json.dumps(values) if path.suffix == ".json" else yaml.safe_dump(values)
    path.write_text(text, encoding="utf-8")
    return path


def verdicts(judge: Judge, path: Path, *contracts: Contract, **asked: Any) -> dict[str, Verdict]:
    """Return what the contracts say of the run that a file describes."""
    return judge(lambda job: job.rehearse_config(path, **asked), *contracts)


# -- Axolotl -----------------------------------------------------------------------------------------------------------


def test_the_run_in_which_this_project_began(judge: Judge, tmp_path: Path) -> None:
    """Two saves an epoch are 395 steps apart: before transformers 4.42 the last of 1578 steps is not saved."""
    path = written(tmp_path, SEED)
    found = verdicts(judge, path, FinalStep(), Aligned(), dataset_len=SEED_LENGTH)
    lost = "training ended at step 1578 and the newest checkpoint is of step 1185: steps 1186 to 1578 are lost"
    final = "violated" if hf.VERSION < (4, 42) else "held"
    assert (final, "violated") == (found["final_step"].status, found["aligned"].status)
    broken = found["final_step" if final == "violated" else "aligned"]
    assert broken.sentence.startswith(lost if final == "violated" else "1578 steps are 3 times the interval of 395")
    finding = broken.findings[0]
    for part in ("ceil(1578/4) = 395", "save_steps=263 or 526", "saves_per_epoch: 1 or 3 with 2 epochs"):
        assert part in f"{finding.cause} {finding.fix}"
    rule = "0.10 to 0.19" if hf.VERSION >= (4, 52) else "0.4 to 0.8"
    assert f"train.yml, read as a configuration of Axolotl, by the rules of {rule}" in " ".join(broken.notes)


def test_an_interval_that_fits(judge: Judge, tmp_path: Path) -> None:
    """With three saves an epoch the last save is that of the last step."""
    path = written(tmp_path, {**SEED, "saves_per_epoch": 3, "save_total_limit": 9})
    found = verdicts(judge, path, FinalStep(), Aligned(), Count(6), dataset_len=SEED_LENGTH)
    assert {"held"} == {verdict.status for verdict in found.values()}, found


RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "an epoch each": ({"saves_per_epoch": None}, {"save_strategy": "epoch", "save_total_limit": 4}),
    "every so many steps": (
        {"saves_per_epoch": None, "save_steps": 100},
        {"save_strategy": "steps", "save_steps": 100},
    ),
    "a fraction": ({}, {"save_strategy": "steps", "save_steps": 0.25}),
    "once in the whole run": ({"saves_per_epoch": 1, "num_epochs": 1}, {"save_strategy": "epoch"}),
    "a limit": ({"save_total_limit": 7}, {"save_total_limit": 7}),
    "the old size of a batch": (
        {"gradient_accumulation_steps": None, "batch_size": 16},
        {"gradient_accumulation_steps": 8},
    ),
    "an adapter": ({"adapter": "qlora", "load_in_4bit": True}, {"save_steps": 0.25}),
    "the best": (
        {"val_set_size": 0.1, "evals_per_epoch": 4, "saves_per_epoch": 2, "load_best_model_at_end": True},
        {"eval_strategy": "steps", "eval_steps": 0.125, "load_best_model_at_end": True},
    ),
    "evaluations that do not fit": (
        {"val_set_size": 0.1, "evals_per_epoch": 3, "saves_per_epoch": 2, "load_best_model_at_end": True},
        {"load_best_model_at_end": False},
    ),
    "no best": (
        {"val_set_size": 0.1, "evals_per_epoch": 2},
        {"load_best_model_at_end": False},
    ),
    "no evaluation": ({}, {"eval_strategy": "no", "load_best_model_at_end": False}),
}


@pytest.mark.parametrize(("changed", "expected"), RULES.values(), ids=RULES)
def test_rules_of_axolotl(tmp_path: Path, changed: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each setting comes to the arguments that Axolotl's builder makes of it."""
    schedule = read(written(tmp_path, {**SEED, **changed}), dataset_len=SEED_LENGTH)
    assert expected == {name: schedule.arguments[name] for name in expected}


def test_a_size_without_accumulation(tmp_path: Path) -> None:
    """Where nothing is said of accumulation it is 1, whatever the size of a batch."""
    values = {name: value for name, value in SEED.items() if name != "gradient_accumulation_steps"}
    schedule = read(written(tmp_path, {**values, "batch_size": 16}), dataset_len=SEED_LENGTH)
    assert 1 == schedule.arguments["gradient_accumulation_steps"]


def test_preferences_have_no_best(tmp_path: Path) -> None:
    """The builder for them knows nothing of the best model."""
    changed = {"rl": "dpo", "val_set_size": 0.1, "evals_per_epoch": 4, "load_best_model_at_end": True}
    schedule = read(written(tmp_path, {**SEED, **changed}), dataset_len=SEED_LENGTH)
    assert (0.125, False) == (schedule.arguments["eval_steps"], schedule.arguments["load_best_model_at_end"])


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ({}, 198),
        ({"ddp": False}, 1578),
        ({"tensor_parallel_size": 2}, 395),
        ({"context_parallel_size": 4}, 789),
        ({"ddp": False, "fsdp_config": {"offload_params": True}}, 198),
    ],
)
def test_processes_that_hold_one_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict[str, Any], steps: int
) -> None:
    """Of eight processes those that share a model are given the same samples, and a switched-off DDP counts none."""
    monkeypatch.setattr(metadata, "version", _versions({"transformers": "5.24.0"}))
    schedule = read(written(tmp_path, {**SEED, **changed}), dataset_len=SEED_LENGTH, world_size=8)
    assert steps == schedule.arguments["max_steps"]


def test_the_first_step_is_saved(judge: Judge, tmp_path: Path) -> None:
    """`save_first_step` is a callback of Axolotl's."""
    path = written(tmp_path, {**SEED, "save_first_step": True, "save_total_limit": 9})
    verdicts(judge, path, FinalStep(), dataset_len=SEED_LENGTH)
    assert (1, 395, 790) == judge.baseline.saved_steps[:3]


@pytest.mark.parametrize(("world_size", "steps"), [(1, 10), (2, 5), (3, 4)])
def test_the_steps_are_counted_over_epochs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world_size: int, steps: int
) -> None:
    """A newer Axolotl divides all samples of all epochs, and an older one leaves it to the Trainer."""
    values = {**SEED, "gradient_accumulation_steps": 1, "num_epochs": 2}
    for transformers, expected in (("5.24.0", steps), ("4.46.3", -1)):
        monkeypatch.setattr(metadata, "version", _versions({"transformers": transformers}))
        schedule = read(written(tmp_path, values), dataset_len=10, world_size=world_size)
        assert expected == schedule.arguments["max_steps"]


def _versions(known: dict[str, str]) -> Any:
    def version(name: str) -> str:
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    return version


def test_early_stopping_of_axolotl(judge: Judge, tmp_path: Path) -> None:
    """The callback is there, and stops a run whose loss stays as it is."""
    stopping = {"val_set_size": 0.1, "evals_per_epoch": 4, "saves_per_epoch": 4, "early_stopping_patience": 2}
    path = written(tmp_path, {**SEED, **stopping})
    found = verdicts(judge, path, FinalStep(), dataset_len=SEED_LENGTH, metric=[0.5, 0.6, 0.7, 0.8])
    assert "held" == found["final_step"].status
    assert 0 < judge.baseline.last_step < 1578


# -- other kinds -------------------------------------------------------------------------------------------------------


def test_llamafactory(judge: Judge, tmp_path: Path) -> None:
    """Its data sets are found by their names and counted, and the part for validation is left out."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "one.json").write_text(json.dumps([{"instruction": "a"}] * 90), encoding="utf-8")
    (folder / "two.jsonl").write_text('{"a": 1}\n' * 32 + "\n", encoding="utf-8")
    known = {"one": {"file_name": "one.json"}, "two": {"file_name": "two.jsonl"}}
    (folder / "dataset_info.json").write_text(json.dumps(known), encoding="utf-8")
    values = {
        "do_train": True,
        "template": "llama3",
        "finetuning_type": "lora",
        "dataset": "one,two",
        "dataset_dir": "data",
    }
    values |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "num_train_epochs": 2.0}
    values |= {"val_size": 0.1, "max_samples": 80, "save_steps": 10, "bf16": True, "deepspeed": "ds_z3.json"}
    schedule = read(written(tmp_path, values))
    assert (100, 12) == (schedule.train_len, schedule.eval_len)  # of 80 and 32
    found = verdicts(judge, tmp_path / "train.yml", Steps([10, 20, 30, 40, 50]))
    assert "held" == found["steps"].status, found
    assert "read as a configuration of LLaMA-Factory" in " ".join(found["steps"].notes)


@pytest.mark.parametrize("name", ["train.yml", "train.json"])
def test_arguments_of_transformers(judge: Judge, tmp_path: Path, name: str) -> None:
    """What belongs to the script is left alone; the strategy `no`, which YAML reads as False, is understood."""
    values = {"model_name_or_path": "some/model", "output_dir": "/elsewhere", "num_train_epochs": 3, "save_steps": 25}
    values |= {"per_device_train_batch_size": 4, "eval_strategy": False, "bf16": True, "push_to_hub": True}
    found = verdicts(judge, written(tmp_path, values, name), Count(3), Aligned(), dataset_len=100)
    assert {"held"} == {verdict.status for verdict in found.values()}, found
    assert (25, 50, 75) == judge.baseline.saved_steps


def test_a_number_of_steps_needs_no_data(judge: Judge, tmp_path: Path) -> None:
    """With max_steps the length of the data decides nothing."""
    path = written(tmp_path, {"max_steps": 30, "save_steps": 10, "per_device_train_batch_size": 4})
    assert "held" == verdicts(judge, path, Steps([10, 20, 30]), world_size=2)["steps"].status


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is no YAML"),
        ("- 1\n- 2", "holds list, expected names with values"),
        ("name: x\nsize: 3", "is no configuration that is known here: expected one of Axolotl"),
        (
            "base_model: x\nmicro_batch_size: 2",
            "does not tell how many samples the trainer is given: the configuration",
        ),
        (
            "base_model: x\nmicro_batch_size: 2\ndatasets: [{path: data.jsonl}]",
            "data.jsonl is not here, or of no kind that can be counted",
        ),
        ("micro_batch_size: 2\nsample_packing: true", "sample_packing is on"),
        (
            "micro_batch_size: 2\nsave_steps: 10\nsaves_per_epoch: 1",
            "save_steps and saves_per_epoch exclude each other",
        ),
        ("micro_batch_size: two", "micro_batch_size must be a number; got 'two'"),
        ("num_train_epochs: 2", "the data set is the script's own"),
        ("stage: pt\ntemplate: x\ndataset: y", "its samples are packed together"),
        ("stage: ppo\ntemplate: x\ndataset: y", "stage: ppo trains in a loop of its own"),
        ("max_steps: 100\nsave_strategy: epoch", "the data set is the script's own"),
        ("micro_batch_size: 2\ndatasets: [{path: a.jsonl, split: 'train[:10%]'}]", "a part of a data set is taken"),
    ],
)
def test_files_that_do_not_serve(tmp_path: Path, text: str, says: str) -> None:
    """The file is named, and what is wrong with it."""
    path = tmp_path / "train.yml"
    path.write_text(dedent(text), encoding="utf-8")
    with pytest.raises(InvalidArgument) as caught:
        read(path, dataset_len=8 if "exclude" in says or "number" in says else None)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(InvalidArgument, match=r"none\.yml can't be read: No such file"):
        read(tmp_path / "none.yml")


def test_json_that_is_none(tmp_path: Path) -> None:
    """It is named."""
    (tmp_path / "train.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidArgument, match=r"train\.json is no JSON"):
        read(tmp_path / "train.json")


@pytest.mark.parametrize("length", [0, -1, 1.5, True])
def test_a_length_that_is_none(tmp_path: Path, length: object) -> None:
    """The argument is named."""
    with pytest.raises(InvalidArgument, match="dataset_len must be the number of samples"):
        read(tmp_path / "train.yml", dataset_len=length)  # type: ignore[arg-type]


# -- one command -------------------------------------------------------------------------------------------------------


def test_one_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It says what is saved and what is wrong, and its exit code tells whether anything is."""
    path = written(tmp_path, SEED)
    assert 1 == command.main([str(path), "--dataset-len", str(SEED_LENGTH)])
    out = capfd.readouterr().out
    assert "1 .. [395] .. [790] .. [1185] .. " in out
    assert "checkpoint contract broken: aligned" in out
    assert "ceil(1578/4) = 395" in out.replace("\n  ", " ")
    assert "repeat" not in out
    fits = written(tmp_path, {**SEED, "saves_per_epoch": 3}, "fits.yml")
    assert 0 == command.main([str(fits), "--dataset-len", str(SEED_LENGTH)])
    assert "BROKEN" not in capfd.readouterr().out


def test_one_command_with_a_bound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An interval that does not divide is right where no more steps are lost than may be."""
    path = written(tmp_path, {"max_steps": 40, "save_steps": 12})
    lost = 12 if hf.VERSION >= (4, 42) else 1
    assert (0 if lost == 12 else 1) == command.main([str(path), "--max-lost-steps", "12"])
    assert 1 == command.main([str(path), "--max-lost-steps", "5"])
    assert "max_lost_steps is 5" in capfd.readouterr().out.replace("\n  ", " ")


def test_one_command_with_bad_input(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names what is wrong, and the exit code is that of bad usage."""
    assert 4 == command.main([str(tmp_path / "none.yml")])
    assert "error: " in (err := capfd.readouterr().err)
    assert "none.yml can't be read" in err
    path = written(tmp_path, {"max_steps": 10, "save_strategy": "sometimes"})
    assert 3 == command.main([str(path)])
    assert "error: the rehearsal failed: ValueError: " in capfd.readouterr().err
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "transformers" else sys)
    assert 4 == command.main([str(path)])
    assert "transformers can't be found; pip install pytest-ckpt[transformers]" in capfd.readouterr().err
