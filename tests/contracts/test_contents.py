"""What of a model its checkpoints are to hold: all that is trained, and in no other shape than a save may give it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jobs import plain
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.saving import FinalStep

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job

LAST = 6


def judged(judge: Judge, train: Callable[[Job], object]) -> dict[str, str]:
    """Return the status of each contract on what checkpoints hold."""
    verdicts = judge(train, Faithful(), FinalStep(), Resumable())
    return {name: verdict.status for name, verdict in verdicts.items()}


def fit(job: Job, model: torch.nn.Module, update: torch.optim.Optimizer, holds: Callable[[str], bool]) -> None:
    """Train all steps, and save every third one with the weights of the names that are held."""
    start = 0
    if job.resume_from is not None:
        state = torch.load(job.resume_from)
        model.load_state_dict(state["model"], strict=False)
        update.load_state_dict(state["optimizer"])
        start = state["step"]
    for step in range(start + 1, LAST + 1):
        inputs, _ = plain.batch(step)
        update.zero_grad()
        model(inputs).square().mean().backward()
        update.step()
        if step % 3 == 0:
            weights: dict[str, Any] = {name: value for name, value in model.state_dict().items() if holds(name)}
            state = {"model": weights, "optimizer": update.state_dict(), "step": step}
            torch.save(state, job.path / f"step_{step}.pt")


ALL_HOLD = {"faithful": "held", "final_step": "held", "resumable": "held"}
LACKS = {"faithful": "violated", "final_step": "violated"}


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_parameters_in_the_list_of_the_optimizer(judge: Judge, *, frozen: bool) -> None:
    """Those that never had a gradient need not be saved; with a gradient, the same file lacks them."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(plain.FEATURES, 5), torch.nn.Linear(5, 2))
        model[0].requires_grad_(requires_grad=not frozen)
        fit(job, model, torch.optim.AdamW(model.parameters(), lr=0.01), lambda name: not name.startswith("0."))

    found = judged(judge, train)
    assert (ALL_HOLD if frozen else LACKS) == {name: found[name] for name in (ALL_HOLD if frozen else LACKS)}


class Gated(torch.nn.Module):
    """A network with a part that has a gradient and never moves: its gate is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Linear(plain.FEATURES, 5)
        self.head = torch.nn.Linear(5, 2)
        self.shut = torch.nn.Linear(5, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the head makes of the body."""
        inner = torch.tanh(self.body(inputs))
        output: torch.Tensor = self.head(inner) + 0.0 * self.shut(inner)
        return output


def averaging(lacks: str = "") -> Callable[[Job], None]:
    """Return a job that saves a model with its average, and the average alone in the end; the model may lack a part."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        model = Gated()
        update = torch.optim.SGD(model.parameters(), lr=0.1)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        for step in range(1, LAST + 1):
            inputs, _ = plain.batch(step)
            update.zero_grad()
            model(inputs).square().mean().backward()
            update.step()
            average.update_parameters(model)
            if step % 3 == 0:
                weights = {name: value for name, value in model.state_dict().items() if not lacks or lacks not in name}
                torch.save({"model": weights, "average": average.module.state_dict()}, job.path / f"step_{step}.pt")
        torch.save(average.module.state_dict(), job.path / "average.pt")

    return train


def test_an_average_of_weights_that_did_not_all_move(judge: Judge) -> None:
    """Weights that equal their average are part of it; weights that lie beside an average are to be whole."""
    verdict = judge(averaging(), Faithful())["faithful"]
    assert "held" == verdict.status, verdict
    broken = judge(averaging("head"), Faithful())["faithful"]
    assert "step_3.pt lacks 2 of 6 trained parameters: head.bias, head.weight" == broken.findings[0].title
    assert all(finding.checkpoint != "average.pt" for finding in broken.findings)


class Adapted(torch.nn.Module):
    """A frozen layer with an adapter, called as PEFT calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = torch.nn.Linear(plain.FEATURES, 5).requires_grad_(requires_grad=False)
        self.lora_A = torch.nn.Linear(plain.FEATURES, 2, bias=False)
        self.lora_B = torch.nn.Linear(2, 5, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the layer and its adapter make of it."""
        output: torch.Tensor = self.base_layer(inputs) + self.lora_B(self.lora_A(inputs))
        return output

    def merged(self, *, really: bool) -> dict[str, torch.Tensor]:
        """Return the weights of a layer without an adapter; they may be as they were."""
        change = self.lora_B.weight @ self.lora_A.weight
        return {"0.weight": self.base_layer.weight + really * change, "0.bias": self.base_layer.bias}


@pytest.mark.parametrize("really", [True, False])
def test_an_adapter_that_is_merged_beside_a_trained_head(judge: Judge, *, really: bool) -> None:
    """What a merged layer holds is not known; with the layer as it was, the adapter is missing."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        layer, head = Adapted(), torch.nn.Linear(5, 2)
        model = torch.nn.Sequential(layer, head)
        fit(
            job,
            model,
            torch.optim.AdamW(filter(lambda p: p.requires_grad, model.parameters()), lr=0.01),
            lambda _: True,
        )
        merged = layer.merged(really=really) | {f"1.{name}": value for name, value in head.state_dict().items()}
        torch.save(merged, job.path / "merged.pt")

    verdict = judge(train, Faithful())["faithful"]
    if really:
        assert ("inconclusive", "merged.pt") == (verdict.status, verdict.findings[0].checkpoint), verdict
        assert "2 of 4 were recognised" in verdict.sentence
    else:
        lacks = "merged.pt lacks 2 of 4 trained parameters: 0.lora_A.weight, 0.lora_B.weight"
        assert lacks == verdict.findings[0].title


# -- optimizers that are idle in some steps ----------------------------------------------------------------------------


def critical(*, stale: bool) -> Callable[[Job], None]:
    """Return a job whose critic is updated in each iteration, and the generator in every third one; its copy may be stale."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        parts = {"generator": torch.nn.Linear(3, 4), "critic": torch.nn.Linear(4, 1)}
        updates = {name: torch.optim.RMSprop(part.parameters(), lr=0.01) for name, part in parts.items()}
        saved: dict[str, Any] = torch.load(job.resume_from) if job.resume_from else {"step": 0}
        for name in parts if job.resume_from else ():
            parts[name].load_state_dict(saved[name])
            updates[name].load_state_dict(saved[f"{name}_update"])
        copied: dict[str, Any] = {}
        for step in range(saved["step"] + 1, 12):
            noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            for name in ("critic", "generator") if step % 3 == 0 else ("critic",):
                updates[name].zero_grad()
                score = parts["critic"](parts["generator"](noise)).square().mean()
                (score if name == "critic" else -score).backward()
                updates[name].step()
            copied = copied if copied and stale else copy.deepcopy(parts["generator"].state_dict())
            if step in {4, 8, 11}:
                state = {f"{name}_update": update.state_dict() for name, update in updates.items()}
                weights = {"generator": copied, "critic": parts["critic"].state_dict()}
                torch.save({**state, **weights, "step": step}, job.path / f"step_{step}.pt")

    return train


def test_a_generator_that_is_updated_in_every_third_step(judge: Judge) -> None:
    """Between its updates it stays as it is, up to the end; an old copy of it is told apart from the critic's weights."""
    assert ALL_HOLD == judged(judge, critical(stale=False))
    finding = judge(critical(stale=True), Faithful())["faithful"].findings[0]
    assert "step_4.pt mixes the states of several steps" == finding.title
    assert {("weights Linear:weight", "steps 0, 1, 2"), ("weights Linear#2:weight", "step 4")} <= set(finding.rows)


def in_turn(*, stale: bool) -> Callable[[Job], None]:
    """Return a job that trains two parts in turn, three steps each, and saves after each turn; one may be saved as it was."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        parts = torch.nn.ModuleList([torch.nn.Linear(plain.FEATURES, 5), torch.nn.Linear(5, 2)])
        updates = [torch.optim.AdamW(part.parameters(), lr=0.01) for part in parts]
        first = copy.deepcopy(parts[0].state_dict())
        done = 0
        if job.resume_from is not None:
            state = torch.load(job.resume_from)
            parts.load_state_dict(state["model"])
            for update, saved in zip(updates, state["updates"], strict=True):
                update.load_state_dict(saved)
            done = state["turn"]
        for turn in range(done + 1, 5):
            for step in range(3 * turn - 2, 3 * turn + 1):
                inputs, _ = plain.batch(step)
                parts.zero_grad()
                parts[1](parts[0](inputs)).square().mean().backward()
                updates[(turn - 1) % 2].step()
            weights = parts.state_dict() | ({f"0.{name}": value for name, value in first.items()} if stale else {})
            state = {"model": weights, "updates": [update.state_dict() for update in updates], "turn": turn}
            torch.save(state, job.path / f"turn_{turn}.pt")

    return train


def test_parts_that_are_trained_in_turn(judge: Judge) -> None:
    """A save ends the last step of a turn, and the part that rests is that of its last update; as it was first, it is stale."""
    assert ALL_HOLD == judged(judge, in_turn(stale=False))
    assert (3, 6, 9, 12) == judge.baseline.saved_steps
    assert "violated" == judge(in_turn(stale=True), Faithful())["faithful"].status


# -- stages, each with a model of its own ------------------------------------------------------------------------------


def in_stages(*, lacks: str = "", loads: bool = True, freezes: bool = False) -> Callable[[Job], None]:
    """Return a job whose second stage begins with what the first saved after step 3.

    Args:
        lacks: the beginning of names that the second stage leaves out of its checkpoints.
        loads: whether it loads the weights to resume from.
        freezes: whether it trains the last layer only.
    """

    def train(job: Job) -> None:
        first, second = job.path / "first", job.path / "second"
        resumed = job.resume_from or ""
        for folder in (first, second):
            folder.mkdir(exist_ok=True)
            if folder == first and "second" in resumed:
                continue
            torch.manual_seed(len(folder.name))
            model = torch.nn.Sequential(torch.nn.Linear(plain.FEATURES, 5), torch.nn.Linear(5, 2))
            if folder == second:
                model.load_state_dict(torch.load(first / "step_3.pt")["model"])
                model[0].requires_grad_(requires_grad=not freezes)
            update = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
            saved: dict[str, Any] = torch.load(resumed) if folder.name in resumed else {"step": 0}
            if saved["step"]:
                update.load_state_dict(saved["update"])
            if saved["step"] and (loads or folder == first):
                model.load_state_dict(saved["model"])
            for step in range(saved["step"] + 1, LAST + 1):
                inputs, _ = plain.batch(step)
                update.zero_grad()
                model(inputs).square().mean().backward()
                update.step()
                if step % 3 == 0:
                    left = {
                        k: v for k, v in model.state_dict().items() if folder == first or not lacks or lacks not in k
                    }
                    torch.save({"model": left, "update": update.state_dict(), "step": step}, folder / f"step_{step}.pt")

    return train


@pytest.mark.parametrize("freezes", [False, True])
def test_stages_with_a_model_each(judge: Judge, *, freezes: bool) -> None:
    """A checkpoint holds the model of its stage, and a resume of the second one never meets the first model."""
    assert ALL_HOLD == judged(judge, in_stages(freezes=freezes))
    assert (3, 6, 9, 12) == judge.baseline.saved_steps


def test_a_stage_that_does_not_save_all_of_its_model(judge: Judge) -> None:
    """What a stage trains and leaves out is missing, and counted among its own parameters."""
    verdicts = judge(in_stages(lacks="1."), Faithful(), FinalStep())
    assert {"violated"} == {verdict.status for verdict in verdicts.values()}, verdicts
    assert (
        "second/step_3.pt lacks 2 of 4 trained parameters: 1.bias, 1.weight" == verdicts["faithful"].findings[0].title
    )


def test_a_stage_that_does_not_load_its_model(judge: Judge) -> None:
    """The second model of one process and the first one of another are compared."""
    verdict = judge(in_stages(loads=False), Resumable())["resumable"]
    assert ("violated", "weights") == (verdict.status, verdict.findings[0].component), verdict
    assert "resumed from step 9: step 10 differs from the uninterrupted run in weights" in verdict.sentence
