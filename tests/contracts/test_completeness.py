"""The contract that what is kept is whole: files that are missing, damaged or never finished, and the mended jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback

from jobs import hf, plain
from pytest_ckpt import tiny
from pytest_ckpt.contracts.completeness import Complete

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Finding, Job

LAST: Final = 8

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")


def folders(after: Callable[[Path, int], object], *, every: int = 2) -> Callable[[Job], None]:
    """Return a job that saves a directory of files, and calls back with it and the step."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % every == 0:
                folder = job.path / f"step-{step}"
                folder.mkdir()
                save_file(model.state_dict(), folder / "model.safetensors")
                torch.save(update.state_dict(), folder / "optimizer.pt")
                torch.save(torch.get_rng_state(), folder / "rng.pt")
                (folder / "state.json").write_text(f'{{"step": {step}}}', encoding="utf-8")
                after(folder, step)

    return train


def at(step: int, change: Callable[[Path], object]) -> Callable[[Job], None]:
    """Return a job whose checkpoint of one step is changed after it was written."""
    return folders(lambda folder, number: change(folder) if number == step else None)


def violations(judge: Judge, train: Callable[[Job], object]) -> tuple[Finding, ...]:
    """Return the findings of the contract, which must be broken."""
    verdict = judge(train, Complete())["complete"]
    assert "violated" == verdict.status, verdict
    assert {"files"} == {finding.component for finding in verdict.findings}
    return verdict.findings


def assert_holds(judge: Judge, train: Callable[[Job], object], sentence: str = "") -> None:
    """Fail unless the contract holds."""
    verdict = judge(train, Complete())["complete"]
    assert "held" == verdict.status, verdict
    assert sentence in verdict.sentence


# -- a file that is missing --------------------------------------------------------------------------------------------


def test_a_file_that_all_others_have(judge: Judge) -> None:
    """Where no framework says what a checkpoint needs, its siblings do."""
    (finding,) = violations(judge, at(6, lambda folder: (folder / "optimizer.pt").unlink()))
    assert "step-6 is incomplete: 1 file is missing, optimizer.pt" == finding.title
    assert (6, "step-6") == (finding.step, finding.checkpoint)
    assert ("because", "all 3 other checkpoints of this run have it") in finding.rows
    assert_holds(judge, folders(lambda *_: None), "4 checkpoints whole: all 16 files are there and parse")


def test_a_file_that_only_one_has(judge: Judge) -> None:
    """An extra file is nothing that the others lack."""
    assert_holds(judge, at(8, lambda folder: (folder / "metrics.txt").write_text("0.5", encoding="utf-8")))


def test_numbers_in_names_of_files(judge: Judge) -> None:
    """A file that is named by its step is the same file in each checkpoint."""

    def rename(folder: Path, step: int) -> None:
        (folder / "optimizer.pt").rename(folder / f"optimizer_{step}.pt")

    assert_holds(judge, folders(rename))


def test_a_shard_that_is_missing(judge: Judge) -> None:
    """The names of the parts say how many there are, whatever the other checkpoints have."""

    def split(folder: Path, step: int) -> None:
        state = torch.load(folder / "optimizer.pt", weights_only=True)
        for part in (1, 2, 3):
            if step < LAST or part != 2:
                torch.save({"part": part, **state}, folder / f"optimizer-{part:05}-of-00003.pt")

    findings = violations(judge, folders(split))
    assert "step-8 is incomplete: 1 file is missing, optimizer-00002-of-00003.pt" == findings[0].title
    assert_holds(judge, folders(lambda folder, step: split(folder, min(step, LAST - 1))))


# -- a file that does not parse ----------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    """Leave half of a file."""
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.safetensors", "step-4/model.safetensors: "),
        ("optimizer.pt", "step-4/optimizer.pt: zip archive"),
        ("state.json", "step-4/state.json: JSON: expected a whole value"),
    ],
)
def test_a_file_that_is_cut_short(judge: Judge, name: str, what: str) -> None:
    """Files of tensors and JSON are read; the damage is described."""
    (finding,) = violations(judge, at(4, lambda folder: cut(folder / name)))
    assert finding.title.startswith(f"step-4 is damaged: {what}")
    assert (4, "step-4") == (finding.step, finding.checkpoint)


def test_an_empty_file(judge: Judge) -> None:
    """A full disk leaves names without content."""
    (finding,) = violations(judge, at(4, lambda folder: (folder / "state.json").write_bytes(b"")))
    assert "state.json: JSON: expected a whole value, found an empty file of 0 bytes" in finding.title


def test_json_line_by_line(judge: Judge) -> None:
    """A log of one value a line is no damaged JSON, and text is not parsed."""

    def write(folder: Path, _: int) -> None:
        (folder / "log.json").write_text('{"step": 1}\n{"step": 2}\n', encoding="utf-8")
        (folder / "notes.txt").write_text("{", encoding="utf-8")

    assert_holds(judge, folders(write))


def test_a_damaged_one_that_is_deleted_again(judge: Judge) -> None:
    """The promise is on what remains."""

    def after(folder: Path, step: int) -> None:
        if step == 4:
            cut(folder / "model.safetensors")
        if step == 8:
            for path in (folder.parent / "step-4").iterdir():
                path.unlink()
            (folder.parent / "step-4").rmdir()

    assert_holds(judge, folders(after))


# -- what was never finished -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["tmp-checkpoint-8", "model.pt.tmp", "step-8-unfinished", "incoming-8", "step_8.orbax-checkpoint-tmp-12"]
)
def test_a_leftover_of_a_save(judge: Judge, name: str) -> None:
    """What lies under a temporary name in the end was never finished; what was renamed is."""
    (finding,) = violations(judge, at(8, lambda folder: (folder.parent / name).touch()))
    assert f"1 unfinished file or directory is left in the end: {name}" == finding.title

    def renamed(folder: Path, step: int) -> None:
        (folder.parent / name).touch()
        (folder.parent / name).rename(folder.parent / f"done-{step}.txt")

    assert_holds(judge, folders(renamed))


def test_a_marker_inside_of_a_checkpoint(judge: Judge) -> None:
    """The directory is named by its topmost temporary name."""

    def mark(folder: Path) -> None:
        (folder / "tmp-8").mkdir()
        (folder / "tmp-8" / "a.tmp").touch()
        (folder / "checkpoint-is-incomplete.txt").touch()

    (finding,) = violations(judge, at(8, mark))
    assert (
        "2 unfinished files or directories are left in the end: step-8/checkpoint-is-incomplete.txt, step-8/tmp-8"
        == finding.title
    )


def test_a_leftover_of_an_earlier_run(judge: Judge) -> None:
    """What lay there before the run is none of its own."""
    (judge.next_directory / "tmp-checkpoint-4").mkdir()
    assert_holds(judge, folders(lambda *_: None))


def test_nothing_to_look_at(judge: Judge) -> None:
    """A job that saves nothing, or keeps nothing, is undecided."""
    verdict = judge(folders(lambda *_: None, every=100), Complete())["complete"]
    assert ("inconclusive", "no checkpoint was saved in 8 steps") == (verdict.status, verdict.sentence)


# -- transformers ------------------------------------------------------------------------------------------------------


class Remove(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Removes a file from each checkpoint after it was saved."""

    def __init__(self, name: str) -> None:
        self._name = name

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remove it."""
        del control
        Path(args.output_dir, f"checkpoint-{state.global_step}", self._name).unlink()


def without(name: str, **given: Any) -> Callable[[Job], None]:
    """Return a job of a Trainer whose checkpoints lack a file."""
    return lambda job: hf.run(job, max_steps=4, save_steps=2, callbacks=[Remove(name)], **given)


@pytest.mark.parametrize(
    "name", ["config.json", "trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
def test_files_that_a_trainer_writes(judge: Judge, name: str) -> None:
    """Each is required, though transformers resumes without some of them and says nothing."""
    first, _ = violations(judge, without(name))
    missing = "rng_state*.pth" if name == "rng_state.pth" else name
    assert f"checkpoint-2 is incomplete: 1 file is missing, {missing}" == first.title
    silent = name in {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert silent == (f"checkpoint-2 has no {name}; transformers resumes without it" in first.cause)


def test_weights_that_a_trainer_writes(judge: Judge) -> None:
    """A checkpoint without weights is none."""
    name = "model.safetensors"
    assert f"checkpoint-2 is incomplete: 1 file is missing, {name}" == violations(judge, without(name))[0].title


def test_the_mere_model_of_a_trainer(judge: Judge) -> None:
    """With save_only_model no more is required."""
    assert_holds(judge, lambda job: hf.run(job, max_steps=4, save_steps=2, save_only_model=True))
    first, _ = violations(judge, without("trainer_state.json", save_only_model=True))
    assert "checkpoint-2 is incomplete: 1 file is missing, trainer_state.json" == first.title


class OwnFormat(Trainer):  # type: ignore[misc,unused-ignore]
    """A Trainer that saves its model in a way of its own."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        del state_dict
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(exist_ok=True)
        assert self.model is not None
        torch.save(self.model.state_dict(), folder / "everything.pt")


def test_a_trainer_with_a_format_of_its_own(judge: Judge) -> None:
    """What holds the weights is told by their values, not by the name of the file."""

    def train(job: Job) -> None:
        arguments = hf.arguments(job, max_steps=4, save_steps=2)
        OwnFormat(hf.Net(hf.Config()), arguments, train_dataset=hf.Samples(), data_collator=hf.collate).train()

    assert_holds(judge, train)


def test_a_model_that_is_no_pretrained_one(judge: Judge) -> None:
    """Only those have a config.json."""

    class Bare(torch.nn.Module):
        """A regression."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            """Return the loss."""
            return {"loss": torch.nn.functional.mse_loss(self.layer(x).squeeze(-1), labels)}

    assert_holds(judge, lambda job: hf.run(job, model=Bare(), max_steps=4, save_steps=2))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter(judge: Judge, name: str) -> None:
    """A checkpoint of an adapter needs its configuration and its weights, and no config.json."""
    peft = pytest.importorskip("peft")

    def train(job: Job, *callbacks: TrainerCallback) -> None:
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
        model = peft.get_peft_model(tiny.causal_lm(), config)
        arguments = hf.arguments(job, max_steps=4, save_steps=2)
        Trainer(model, arguments, train_dataset=tiny.text(), callbacks=list(callbacks)).train()

    first, _ = violations(judge, lambda job: train(job, Remove(name)))
    assert f"checkpoint-2 is incomplete: 1 file is missing, {name}" == first.title
    assert_holds(judge, train)


class Sharded(hf.Net):
    """A model that is saved in many parts."""

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save parts of 100 bytes at most."""
        return super().save_pretrained(*args, **{**kwargs, "max_shard_size": 100})  # type: ignore[func-returns-value,unused-ignore]


def test_weights_in_shards(judge: Judge) -> None:
    """The index and each part are required."""

    def train(job: Job, *callbacks: TrainerCallback) -> None:
        hf.run(job, model=Sharded(hf.Config()), max_steps=4, save_steps=2, callbacks=list(callbacks))

    assert_holds(judge, train)
    parts = [Path(path).name for path in judge.baseline.checkpoints[0].files if "-of-" in path]
    assert len(parts) > 1
    for name in ("model.safetensors.index.json", parts[1]):
        first, _ = violations(judge, lambda job, name=name: train(job, Remove(name)))  # type: ignore[misc]
        assert f"checkpoint-2 is incomplete: 1 file is missing, {name}" == first.title
