"""Jobs that fork ranks which train together are looked at in the process of rank 0."""

from __future__ import annotations

import importlib
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist

from jobs import plain, ranks
from pytest_ckpt.contracts.completeness import Complete
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.lab import Lab, LabSettings
from pytest_ckpt.runs.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are followed where they are forked")


def test_two_ranks_that_save_and_resume_rightly(judge: Judge) -> None:
    """Steps, states, files and resumes are seen as those of one process are, and nothing is left of any run."""
    verdicts = judge(
        lambda job: ranks.launch(ranks.saved_by_one, job), FinalStep(), Faithful(), Complete(), Resumable()
    )
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, str(judge)
    assert (2, 4, 6) == judge.baseline.saved_steps
    assert 6 == judge.baseline.last_step
    assert {()} == {run.outcome.leftovers for run in judge.lab.runs.values()}


def test_the_last_step_is_not_saved(judge: Judge) -> None:
    """As in one process."""
    verdict = judge(lambda job: ranks.launch(partial(ranks.saved_by_one, steps=7), job), FinalStep())["final_step"]
    assert "violated" == verdict.status
    assert 7 == verdict.findings[0].step


def test_a_resume_that_forgets_the_optimizer(judge: Judge) -> None:
    """It is named."""
    verdict = judge(lambda job: ranks.launch(partial(ranks.saved_by_one, optimizer=False), job), Resumable())
    assert "optimizer" == verdict["resumable"].findings[0].component


def test_a_launcher_of_accelerate(judge: Judge) -> None:
    """It sets the same rank in the environment of all, and tells torch which each has."""
    accelerate: Any = pytest.importorskip("accelerate")
    verdicts = judge(lambda job: accelerate.debug_launcher(_train_by_accelerate, (job,)), FinalStep(), Faithful())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, str(judge)
    assert (2, 4) == judge.baseline.saved_steps
    assert () == judge.baseline.notes


def test_a_launcher_in_a_process_that_has_used_accelerate(judge: Judge) -> None:
    """Its state is inherited: each rank takes itself for the only one, and a note on what is broken says so.

    Both write the same files at once: whether the last step is whole in the end depends on which of them was faster.
    """
    accelerate: Any = pytest.importorskip("accelerate")
    accelerate.Accelerator(cpu=True)
    verdicts = judge(lambda job: accelerate.debug_launcher(_train_by_accelerate, (job,)), FinalStep(), Count(7))
    (note,) = verdicts["count"].notes
    assert note.startswith("accelerate was used in this process before the job forked its ranks")
    assert "AcceleratorState._reset_state(reset_partial_state=True)" in note
    final = verdicts["final_step"]
    assert final.notes == (() if final.status == "held" else (note,)), str(judge)


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Have it know nothing of what other tests have used it for: processes that are forked would know the same."""

    def reset() -> None:
        if (state := sys.modules.get("accelerate.state")) is not None:
            state.AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - accelerate's own tests have no other way

    reset()
    yield
    reset()


def _train_by_accelerate(job: Job) -> None:
    accelerate: Any = importlib.import_module("accelerate")
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True)
    net = torch.nn.Linear(8, 1)
    model, optimizer = accelerator.prepare(net, torch.optim.AdamW(net.parameters(), lr=0.1))
    for step in range(1, 5):
        accelerator.backward(model(ranks.batch(step)).pow(2).mean())
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 0:
            accelerator.save_state(f"{job.dir}/step_{step}")


def test_a_rank_that_fails_ends_the_job(tmp_path: Path) -> None:
    """Its error is told, and nobody waits for the other rank."""
    job = Job(tmp_path / "job")
    job.path.mkdir()
    lab = Lab(
        job=job,
        body=lambda: ranks.launch(partial(ranks.saved_by_one, fails=3), job),
        folder=tmp_path / "evidence",
        seed_text="ranks",
        settings=LabSettings(timeout=60),
    )
    run = lab.run()
    assert "raised" == run.outcome.status, run.outcome
    assert "rank 1 fails" in run.outcome.message
    assert 2 == run.last_step
    assert (2,) == run.saved_steps


class Transformed(torch.utils.data.Dataset[torch.Tensor]):
    """Samples that pass through a module, as those of pictures do, in the workers that load them."""

    def __init__(self) -> None:
        self._transform = torch.nn.Linear(plain.FEATURES, plain.FEATURES)

    def __len__(self) -> int:
        """Return how many there are."""
        return plain.SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return one."""
        sample: torch.Tensor = self._transform(plain.samples()[0][index])
        return sample.detach()


@pytest.mark.parametrize("ranked", ["not", "by the shell", "by the job", "with torch.distributed"])
def test_workers_that_load_data_are_no_ranks(judge: Judge, monkeypatch: pytest.MonkeyPatch, ranked: str) -> None:
    """They are forked, too, before the first step, and have the rank of the process that they work for."""
    if ranked == "by the shell":
        monkeypatch.setenv("RANK", "0")

    def train(job: Job) -> None:
        torch.manual_seed(0)
        if ranked == "by the job":
            os.environ["RANK"] = "0"
        if ranked == "with torch.distributed":
            dist.init_process_group("gloo", init_method=f"file://{job.dir}.store", rank=0, world_size=1)
        model = plain.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step, inputs in enumerate(torch.utils.data.DataLoader(Transformed(), 5, num_workers=2), start=1):
            model(inputs).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            torch.save(model.state_dict(), f"{job.dir}/step_{step}.pt")

    verdicts = judge(train, FinalStep(), Faithful())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, str(judge)
    assert (1, 2, 3, 4) == judge.baseline.saved_steps


@pytest.mark.parametrize("place", ["step_{}", "last"])
def test_a_rank_that_saves_before_the_other_has_come_to_it(judge: Judge, place: str) -> None:
    """What it writes belongs to the step that is saved, be it new or written over what was there."""
    verdicts = judge(
        lambda job: ranks.launch(partial(ranks.saved_by_each, place=place), job), FinalStep(), Faithful(), Complete()
    )
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, str(judge)
    assert (2, 4, 6) == judge.baseline.saved_steps
    early = [
        look
        for look in judge.baseline.looks
        if look.step % 2 and f"{place.format(look.step + 1)}/rank1.pt" in look.tree
    ]
    assert early
