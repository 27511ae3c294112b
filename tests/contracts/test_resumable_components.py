"""A resume that forgets one part of the state is found out, and the part is named; the whole job beside it holds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.resuming import Resumable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from conftest import Judge
    from pytest_ckpt import Finding, Job

LAST: Final = 7


class Sampler:
    """Yields batches in an order of its own, and knows where it stands."""

    def __init__(self) -> None:
        self.place = 0

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.place += 1
        return plain.batch(self.place)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.place = state["place"]


class Buffers:
    """The running statistics of a model, apart from its weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self._model.named_buffers()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, value in self._model.named_buffers():
            value.copy_(state[name])


class Parameters:
    """The weights of a model, apart from its buffers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self._model.named_parameters()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in self._model.named_parameters():
                value.copy_(state[name])


def job_that_forgets(*parts: str, seeded: bool = True) -> Callable[[Job], None]:
    """Return a job with all kinds of state, which leaves some of them out of its checkpoints."""

    def train(job: Job) -> None:
        if seeded:
            torch.manual_seed(1)
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.LinearLR(update, 1.0, 0.1, total_iters=LAST)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2)
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
        )
        shadow = {name: value.detach().clone() for name, value in model.named_parameters()}
        sampler = Sampler()
        saver = plain.Saver(
            job,
            forget=parts,
            weights=Parameters(model),
            buffers=Buffers(model),
            optimizer=update,
            scheduler=scheduler,
            scaler=scaler,
            ema_module=average,
            ema_dict=Shadow(shadow),
            data=sampler,
        )
        for _ in plain.steps(saver, LAST, 2):
            inputs, targets = next(sampler)
            update.zero_grad()
            loss = cross_entropy(model(inputs), targets) * (1 + 0.01 * random.random())  # noqa: S311
            scaler.scale(loss).backward()
            scaler.step(update)
            scaler.update()
            scheduler.step()
            average.update_parameters(model)
            with torch.no_grad():
                for name, value in model.named_parameters():
                    shadow[name].mul_(0.8).add_(value, alpha=0.2)

    return train


class Shadow:
    """Saves and loads a dict of tensors in place."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, value in self._tensors.items():
            value.copy_(state[name])


def test_a_job_that_restores_everything_holds(judge: Judge) -> None:
    """With every part saved, resuming from each of four checkpoints is exact."""
    verdict = judge(job_that_forgets(), Resumable())["resumable"]
    assert ("held", (2, 4, 6, 7)) == (verdict.status, judge.baseline.saved_steps), verdict


COMPONENTS: Final = {
    "weights": "weights",
    "buffers": "buffers",
    "optimizer": "optimizer",
    "scheduler": "scheduler",
    "scaler": "scaler",
    "ema_module": "ema",
    "ema_dict": "ema",
    "data": "data",
    "rng": "rng",
}


@pytest.mark.parametrize("part", COMPONENTS)
def test_a_forgotten_part_is_named(judge: Judge, part: str) -> None:
    """The first difference after the first checkpoint is the part that is missing, at the first resumed step."""
    verdict = judge(job_that_forgets(part), Resumable())["resumable"]
    assert "violated" == verdict.status, verdict
    finding = verdict.findings[0]
    assert (COMPONENTS[part], 3, "step_2.pt") == (finding.component, finding.step, finding.checkpoint), finding
    assert finding.cause
    assert finding.fix


def test_a_forgotten_step_counter_trains_too_long(judge: Judge) -> None:
    """A run that counts from zero again trains more steps than were left."""
    finding = violation(judge, job_that_forgets("step"))
    assert ("steps", "step_2.pt") == (finding.component, finding.checkpoint)
    assert "7 steps were trained, expected 5" in finding.title


def violation(judge: Judge, train: Callable[[Job], object], **arguments: Any) -> Finding:
    """Return the first finding of a job that must not be resumable."""
    verdict = judge(train, Resumable(**arguments))["resumable"]
    assert "violated" == verdict.status, verdict
    return verdict.findings[0]


LEVELS: Final = {
    "runs": [],
    "state": ["optimizer"],
    "data": ["optimizer", "data"],
    "exact": ["optimizer", "data", "rng"],
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("part", ["optimizer", "data", "rng"])
def test_a_level_sees_what_it_promises(judge: Judge, level: Any, part: str) -> None:
    """A lower level does not look at what only a higher one promises."""
    verdict = judge(job_that_forgets(part), Resumable(level))["resumable"]
    assert ("violated" if part in LEVELS[level] else "held") == verdict.status, verdict


def test_augmentation_that_is_drawn_from_a_generator_which_is_not_restored(judge: Judge) -> None:
    """The batches differ, and the message says that they were drawn from random generators in another state."""

    def train(job: Job) -> None:
        model = plain.network(dropout=0.0)
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, forget=("rng",), model=model, optimizer=update)
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs + 0.01 * torch.randn_like(inputs)), targets).backward()
            update.step()

    finding = violation(judge, train)
    assert ("data", 4) == (finding.component, finding.step)
    assert "drawn from it" in finding.cause
    assert ("rng", "state of torch differs") in finding.rows


@pytest.mark.parametrize("saved", [False, True])
def test_slow_weights(judge: Judge, *, saved: bool) -> None:
    """What is put into the model between updates and is not saved shows late; the model's own state dict was loaded."""

    def train(job: Job) -> None:
        torch.manual_seed(1)
        model = plain.network()
        update = torch.optim.SGD(model.parameters(), lr=0.05)
        slow = {name: value.detach().clone() for name, value in model.named_parameters()}
        forget = () if saved else ("slow",)
        saver = plain.Saver(job, forget=forget, model=model, optimizer=update, slow=Shadow(slow))
        for step in plain.steps(saver, 8, 4):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 3 == 0:
                with torch.no_grad():
                    for name, value in model.named_parameters():
                        value.copy_(slow[name].lerp_(value, 0.5))

    if saved:
        assert "held" == judge(train, Resumable())["resumable"].status
        return
    finding = violation(judge, train)
    assert ("weights", 7, "step_4.pt") == (finding.component, finding.step, finding.checkpoint)
    assert "slow weights" in finding.cause
    assert "between updates" in finding.fix


@pytest.mark.parametrize("applied", [False, True])
def test_gradients_of_batches_before_the_save(judge: Judge, *, applied: bool) -> None:
    """Accumulated gradients that an epoch leaves to the next one are lost by a resume, unless they are applied at its end."""

    def train(job: Job) -> None:
        torch.manual_seed(1)
        model = plain.network(dropout=0.0, norm=False)
        update = torch.optim.SGD(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for epoch in plain.steps(saver, 3, 1):
            for number in range(5):
                inputs, targets = plain.batch(5 * epoch + number)
                cross_entropy(model(inputs), targets).backward()
                if number % 2 or (applied and number == 4):
                    update.step()
                    update.zero_grad()

    if applied:
        assert "held" == judge(train, Resumable())["resumable"].status
        return
    finding = violation(judge, train)
    assert ("gradients", 3) == (finding.component, finding.step)
    assert "batches before the save are part of this update" in finding.cause
    assert "step the optimizer before saving" in finding.fix


@pytest.mark.parametrize("restored", [False, True])
def test_parameters_that_are_frozen_again(judge: Judge, *, restored: bool) -> None:
    """A backbone that is unfrozen at a step stays frozen when resumed after it, and is not blamed on the data."""

    def train(job: Job) -> None:
        torch.manual_seed(1)
        backbone = torch.nn.Sequential(torch.nn.Linear(plain.FEATURES, 4), torch.nn.Tanh())
        head = torch.nn.Linear(4, plain.CLASSES)
        update = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.05)
        saver = plain.Saver(job, backbone=backbone, head=head, optimizer=update)
        backbone.requires_grad_(requires_grad=False)
        for step in plain.steps(saver, LAST, 2):
            if step == 3 or (restored and step > 3):
                backbone.requires_grad_(requires_grad=True)
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(head(backbone(inputs)), targets).backward()
            update.step()

    if restored:
        assert "held" == judge(train, Resumable())["resumable"].status
        return
    finding = violation(judge, train)
    assert ("gradients", 5, "step_4.pt") == (finding.component, finding.step, finding.checkpoint)
    assert "step 5 does not train 2 of 4 parameters that the uninterrupted run trains" in finding.title
    assert finding.title.endswith("Sequential:0.bias first")
    assert "frozen after the resume" in finding.cause
    assert "require gradients" in finding.fix
    assert ["weights", "gradients"] == [row[0] for row in finding.rows]


@pytest.mark.parametrize("restored", [False, True])
def test_models_of_one_class_of_which_one_is_frozen_at_first(judge: Judge, *, restored: bool) -> None:
    """A resume after it is unfrozen meets them in another order of training, and knows which is which all the same."""

    def train(job: Job) -> None:
        torch.manual_seed(1)
        body, head = torch.nn.Linear(plain.FEATURES, 4), torch.nn.Linear(4, plain.CLASSES)
        update = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.05)
        saver = plain.Saver(job, forget=() if restored else ("body",), body=body, head=head, optimizer=update)
        for step in plain.steps(saver, LAST, 2):
            body.requires_grad_(requires_grad=step >= 3)
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(head(body(inputs)), targets).backward()
            update.step()

    if restored:
        assert "held" == judge(train, Resumable())["resumable"].status
    else:
        assert "weights" == violation(judge, train).component


def test_a_layer_that_is_dropped_at_random_is_not_called_frozen(judge: Judge) -> None:
    """It gets no gradient in some steps; where the random state is lost, that is told."""

    def train(job: Job) -> None:
        torch.manual_seed(1)
        body, head = torch.nn.Linear(plain.FEATURES, plain.FEATURES), torch.nn.Linear(plain.FEATURES, plain.CLASSES)
        update = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.05)
        saver = plain.Saver(job, forget=("rng",), body=body, head=head, optimizer=update)
        for step in plain.steps(saver, LAST, 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            hidden = inputs if torch.rand(()) < 0.5 else body(inputs)
            cross_entropy(head(hidden), targets).backward()
            update.step()

    finding = violation(judge, train)
    assert "frozen" not in finding.cause
    assert "random generators" in finding.cause


def test_only_the_named_steps_are_resumed_from(judge: Judge) -> None:
    """`steps` chooses the checkpoints."""
    finding = violation(judge, job_that_forgets("optimizer"), steps=[4])
    assert (5, "step_4.pt") == (finding.step, finding.checkpoint)


def test_a_job_that_depends_on_the_process_it_is_built_in(judge: Judge) -> None:
    """Frozen weights that are random and neither saved nor seeded: another process resumes with others."""

    def train(job: Job) -> None:
        model = torch.nn.Sequential(
            torch.nn.Linear(plain.FEATURES, 5), torch.nn.Tanh(), torch.nn.Linear(5, plain.CLASSES)
        )
        model[0].requires_grad_(requires_grad=False)
        update = torch.optim.AdamW(model[2].parameters(), lr=0.05)
        saver = plain.Saver(job, head=model[2], optimizer=update)
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()

    finding = violation(judge, train)
    assert "depends on the unseeded state of the process" in finding.title
    assert "weights" == finding.component
    assert "held" == judge(train, Resumable(reseed=False))["resumable"].status


def test_noise_is_no_broken_resume(judge: Judge) -> None:
    """A job that differs from itself, run twice from equal seeds, proves nothing: inconclusive, with the noise."""

    def train(job: Job) -> None:
        noise = random.SystemRandom()
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs + 0.01 * noise.random()), targets).backward()
            update.step()

    verdict = judge(train, Resumable())["resumable"]
    assert "inconclusive" == verdict.status
    assert "not reproducible" in verdict.sentence


def test_a_check_that_can_see_nothing_is_not_believed(judge: Judge) -> None:
    """A model that does not learn looks resumed whatever is in the checkpoint."""

    def train(job: Job) -> None:
        torch.manual_seed(3)
        model = plain.network(dropout=0.0, norm=False)
        update = torch.optim.SGD(model.parameters(), lr=0.0)
        saver = plain.Saver(job, model=model)
        start = int(job.resume_from.rsplit("_", 1)[1].split(".")[0]) if job.resume_from else 0
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 3 == 0:
                saver.save(step)

    verdict = judge(train, Resumable())["resumable"]
    assert ("inconclusive", True) == (verdict.status, "blind" in verdict.sentence), verdict


def test_a_job_that_ignores_resume_from_is_told_so(judge: Judge) -> None:
    """Nothing was resumed, so nothing is said about resuming."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 3 == 0:
                torch.save({"model": model.state_dict(), "optimizer": update.state_dict()}, job.path / f"{step}.pt")

    verdict = judge(train, Resumable())["resumable"]
    assert ("inconclusive", "the job never read ckpt_job.resume_from") == (verdict.status, verdict.sentence)


def test_a_job_that_starts_from_scratch_when_resumed(judge: Judge) -> None:
    """A body that reads `resume_from` and does not use it trains all steps again."""

    def train(job: Job) -> None:
        assert job.resume_from is None or job.resume_from.endswith(".pt")
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.1)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 3 == 0:
                torch.save({"model": model.state_dict(), "optimizer": update.state_dict()}, job.path / f"{step}.pt")

    finding = violation(judge, train)
    assert "resuming from step 3 started from scratch: 7 steps were trained, expected 4" == finding.title


def test_a_resume_that_raises(judge: Judge) -> None:
    """An error while loading is shown with its last lines."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.1)
        saver = plain.Saver(job, model=model, optimizer=update)
        if job.resume_from is not None:
            torch.load(job.resume_from, weights_only=False)["models"]
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()

    finding = violation(judge, train)
    assert "resuming from step 3 raised an error after 0 of 4 steps: KeyError: 'models'" == finding.title
    assert any("models" in text for _, text in finding.rows)


def test_a_finished_run_that_trips_over_having_nothing_to_do(judge: Judge) -> None:
    """What a script does after its last step may need a step: that is told of, and no broken promise."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.1)
        saver = plain.Saver(job, model=model, optimizer=update)
        losses = []
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            losses.append(loss.item())
            loss.backward()
            update.step()
        assert sum(losses) / len(losses) > 0

    verdict = judge(train, Resumable())["resumable"]
    assert "held" == verdict.status, verdict
    assert any("ZeroDivisionError" in note for note in verdict.notes)


def test_a_last_checkpoint_that_can_not_be_loaded(judge: Judge) -> None:
    """The save at the end goes another way, and only a resume from it fails."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.1)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, 3):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
        state = torch.load(job.path / "step_7.pt", weights_only=False)
        state["model"] = {f"module.{name}": value for name, value in state["model"].items()}
        torch.save(state, job.path / "step_7.pt")

    finding = violation(judge, train)
    assert ("step_7.pt", "runs") == (finding.checkpoint, finding.component)
    assert any("Missing key(s) in state_dict" in text for _, text in finding.rows)
