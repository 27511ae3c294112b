"""No false alarm: correct plain torch loops of many kinds keep every contract, resumed in processes seeded unlike the first."""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from jobs import plain
from pytest_ckpt.contracts import builtin
from pytest_ckpt.contracts.latest import Latest
from pytest_ckpt.contracts.loading import Loadable
from pytest_ckpt.contracts.moving import Relocatable
from pytest_ckpt.contracts.purity import Pure
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.contracts.saving import Count
from pytest_ckpt.contracts.scheduling import Steps
from pytest_ckpt.contracts.size import Compact
from pytest_ckpt.contracts.stability import StableSchedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Contract, Job

LAST, EVERY = 7, 3


def everything() -> list[Contract]:
    """Return the default set and what does not belong to it, with the saves that these loops make; nobody tells a metric."""
    numbers: tuple[Contract, ...] = (Count(3), Steps(every=EVERY), Retention(3), Compact())
    more: tuple[Contract, ...] = (Loadable(), StableSchedule(), Latest(), Relocatable(), Pure())
    given = {contract.name: contract for contract in (*numbers, *more)}
    kinds = [kind for kind in builtin() if kind.name != "best"]
    return [contract for kind in kinds if (contract := given.get(kind.name) or kind.default()) is not None]


def assert_all_hold(judge: Judge, train: Callable[[Job], object]) -> None:
    """Fail with every verdict that is not `held`."""
    verdicts = judge(train, *everything())
    assert {} == {name: verdict for name, verdict in verdicts.items() if verdict.status != "held"}
    assert LAST == judge.baseline.last_step
    assert (3, 6, 7) == judge.baseline.saved_steps


def simple(optimizer: Callable[[Any], torch.optim.Optimizer], **options: Any) -> Callable[[Job], None]:
    """Return a job with one model, one optimizer and one scheduler."""

    def train(job: Job) -> None:
        model = plain.network(**options)
        update = optimizer(model.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(update, LAST)
        saver = plain.Saver(job, model=model, optimizer=update, scheduler=scheduler)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            scheduler.step()

    return train


OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "adam_amsgrad": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "sgd_momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers(judge: Judge, optimizer: str) -> None:
    """A loop with dropout, batch norm and a cosine schedule holds with every usual optimizer."""
    assert_all_hold(judge, simple(OPTIMIZERS[optimizer]))


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda update: torch.optim.lr_scheduler.StepLR(update, 2, 0.5),
    "one_cycle": lambda update: torch.optim.lr_scheduler.OneCycleLR(update, 0.1, total_steps=LAST + 1),
    "lambda": lambda update: torch.optim.lr_scheduler.LambdaLR(update, lambda step: 1 / (step + 1)),
    "sequential": lambda update: torch.optim.lr_scheduler.SequentialLR(
        update,
        [
            torch.optim.lr_scheduler.LinearLR(update, 0.1, total_iters=2),
            torch.optim.lr_scheduler.ExponentialLR(update, 0.9),
        ],
        [2],
    ),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_schedulers(judge: Judge, kind: str) -> None:
    """Schedules of all shapes continue where they stood."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        scheduler = SCHEDULERS[kind](update)
        saver = plain.Saver(job, model=model, optimizer=update, scheduler=scheduler)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            scheduler.step()

    assert_all_hold(judge, train)


def test_plateau(judge: Judge) -> None:
    """A scheduler that follows the loss has a state of its own."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(update, patience=0, factor=0.5)
        saver = plain.Saver(job, model=model, optimizer=update, scheduler=scheduler)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            loss.backward()
            update.step()
            scheduler.step(1.0 + step)

    assert_all_hold(judge, train)


def test_loss_module(judge: Judge) -> None:
    """A loss that is a module gets the model's output, which is not data, and the targets, which are."""

    def train(job: Job) -> None:
        model = plain.network()
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            criterion(model(inputs), targets).backward()
            update.step()

    assert_all_hold(judge, train)


def test_accumulated_gradients(judge: Judge) -> None:
    """Several backward passes make one step."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            update.zero_grad()
            for part in range(3):
                inputs, targets = plain.batch(3 * step + part)
                (cross_entropy(model(inputs), targets) / 3).backward()
            update.step()

    assert_all_hold(judge, train)


def test_gradient_clipping_and_weight_clamping(judge: Judge) -> None:
    """Weights that are changed after the optimizer's step are saved as they then are."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            update.step()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.clamp_(-0.2, 0.2)

    assert_all_hold(judge, train)


def test_evaluation_between_steps(judge: Judge) -> None:
    """A forward pass in evaluation mode, with or without gradients, is no step and no training data."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            model.train()
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % 2 == 0:
                model.eval()
                with torch.no_grad():
                    model(plain.samples()[0])

    assert_all_hold(judge, train)


class Average:
    """An exponential moving average of a model's weights, as many repositories write it: a dict of tensors."""

    def __init__(self, model: torch.nn.Module, decay: float = 0.8) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model: torch.nn.Module) -> None:
        for name, value in model.named_parameters():
            self.shadow[name] = self.decay * self.shadow[name] + (1 - self.decay) * value.detach()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.shadow

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.shadow = dict(state)


@pytest.mark.parametrize("kind", ["dict", "module"])
def test_moving_average(judge: Judge, kind: str) -> None:
    """An average of the weights, as a dict or as torch's own module, is saved beside them."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        average: Any
        if kind == "dict":
            average, advance = Average(model), "update"
        else:
            average = torch.optim.swa_utils.AveragedModel(
                model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
            )
            advance = "update_parameters"
        saver = plain.Saver(job, model=model, optimizer=update, ema=average)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            getattr(average, advance)(model)

    assert_all_hold(judge, train)


def test_two_optimizers_of_a_gan(judge: Judge) -> None:
    """Two models with an optimizer each, stepped one after the other, make one step together."""

    def train(job: Job) -> None:
        generator = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, plain.FEATURES))
        critic = torch.nn.Sequential(torch.nn.Linear(plain.FEATURES, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        for_generator = torch.optim.Adam(generator.parameters(), lr=0.01)
        for_critic = torch.optim.Adam(critic.parameters(), lr=0.01)
        saver = plain.Saver(job, generator=generator, critic=critic, for_generator=for_generator, for_critic=for_critic)
        for step in plain.steps(saver, LAST, EVERY):
            real, _ = plain.batch(step)
            fake = generator(torch.randn(plain.BATCH, 4))
            for_critic.zero_grad()
            (critic(fake.detach()).mean() - critic(real).mean()).backward()
            for_critic.step()
            for_generator.zero_grad()
            (-critic(generator(torch.randn(plain.BATCH, 4))).mean()).backward()
            for_generator.step()

    assert_all_hold(judge, train)


def test_two_optimizers_share_a_model(judge: Judge) -> None:
    """Matrices and vectors have optimizers of their own, as with Muon and AdamW."""

    def train(job: Job) -> None:
        model = plain.network()
        matrices = torch.optim.SGD([p for p in model.parameters() if p.dim() > 1], lr=0.05, momentum=0.95)
        vectors = torch.optim.AdamW([p for p in model.parameters() if p.dim() == 1], lr=0.01)
        saver = plain.Saver(job, model=model, matrices=matrices, vectors=vectors)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            for update in (matrices, vectors):
                update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            for update in (matrices, vectors):
                update.step()

    assert_all_hold(judge, train)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon(judge: Judge) -> None:
    """Torch's own Muon for the matrices, AdamW for the rest."""

    def train(job: Job) -> None:
        model = plain.network()
        matrices = torch.optim.Muon([p for p in model.parameters() if p.dim() == 2], lr=0.05)
        vectors = torch.optim.AdamW([p for p in model.parameters() if p.dim() != 2], lr=0.01)
        saver = plain.Saver(job, model=model, matrices=matrices, vectors=vectors)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            matrices.zero_grad()
            vectors.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            matrices.step()
            vectors.step()

    assert_all_hold(judge, train)


class InBackward:
    """An optimizer per parameter that steps as soon as the gradient is there, inside the backward pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.optimizers = {name: torch.optim.AdamW([value], lr=0.01) for name, value in model.named_parameters()}
        for name, value in model.named_parameters():
            value.register_post_accumulate_grad_hook(self._hook(self.optimizers[name]))

    def _hook(self, optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor], None]:
        def hook(_: torch.Tensor) -> None:
            optimizer.step()
            optimizer.zero_grad()

        return hook

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])


def test_optimizer_in_backward(judge: Judge) -> None:
    """Six optimizers tick in each backward pass: one step."""

    def train(job: Job) -> None:
        model = plain.network()
        update = InBackward(model)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            cross_entropy(model(inputs), targets).backward()

    assert_all_hold(judge, train)


def test_closure(judge: Judge) -> None:
    """LBFGS runs several forward passes inside its own step."""

    def train(job: Job) -> None:
        model = plain.network(dropout=0.0, norm=False)
        update = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)

            def closure() -> torch.Tensor:
                update.zero_grad()
                loss = cross_entropy(model(inputs), targets)  # noqa: B023 - called at once
                loss.backward()
                return loss

            update.step(closure)

    assert_all_hold(judge, train)


@pytest.mark.parametrize("fused", [False, True])
def test_gradient_scaler_with_an_overflow(judge: Judge, *, fused: bool) -> None:
    """An overflow skips the update: the job counts a step that changes nothing, and says so."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        saver = plain.Saver(job, model=model, optimizer=update, scaler=scaler)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            scaler.scale(loss * (float("inf") if step == 4 else 1.0)).backward()
            scaler.step(update)
            scaler.update()
            job.step()

    assert_all_hold(judge, train)


def test_asynchronous_save_of_a_copy(judge: Judge) -> None:
    """A thread writes a copy of the state while training goes on."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        writers: list[threading.Thread] = []
        for step in range(saver.load() + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % EVERY == 0 or step == LAST:
                state = copy.deepcopy({name: part.state_dict() for name, part in saver.parts.items()})
                path = job.path / f"step_{step}.pt"
                writer = threading.Thread(target=torch.save, args=({**state, "step": step}, path))
                writer.start()
                writers.append(writer)
        for writer in writers:
            writer.join()

    assert_all_hold(judge, train)


def test_one_file_that_is_overwritten(judge: Judge) -> None:
    """A loop that keeps one file has three checkpoints over time, each under the same name."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update, name="ckpt.pt")
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()

    verdicts = judge(train, *(contract for contract in everything() if contract.name != "count"))
    assert {} == {name: verdict for name, verdict in verdicts.items() if verdict.status != "held"}
    assert (3, 6, 7) == judge.baseline.saved_steps


def test_a_directory_per_checkpoint(judge: Judge) -> None:
    """Model, optimizer and the rest lie in files of their own, and the best model beside them."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        rng = plain.RandomStates()
        parts: dict[str, Any] = {"model": model, "optimizer": update, "rng": rng}
        start = 0
        if path := plain.start_from(job, "runs/ckpt-*"):
            for name, part in parts.items():
                part.load_state_dict(torch.load(f"{path}/{name}.pt", weights_only=False))
            start = int(path.rsplit("-", 1)[1])
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % EVERY == 0 or step == LAST:
                folder = job.path / "runs" / f"ckpt-{step}"
                folder.mkdir(parents=True)
                for name, part in parts.items():
                    torch.save(part.state_dict(), folder / f"{name}.pt")

    assert_all_hold(judge, train)


def test_activation_checkpointing(judge: Judge) -> None:
    """Forward passes that the backward pass repeats are no forward passes."""

    def train(job: Job) -> None:
        model = plain.network(norm=False)
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            hidden = torch.utils.checkpoint.checkpoint(model[:2], inputs, use_reentrant=False)
            cross_entropy(model[2:](hidden), targets).backward()
            update.step()

    assert_all_hold(judge, train)


def test_frozen_part_and_second_model(judge: Judge) -> None:
    """A frozen teacher is used in training and not saved: it is built alike in every process."""

    def train(job: Job) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(99)
            teacher = plain.network(norm=False).eval().requires_grad_(requires_grad=False)
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, _ = plain.batch(step)
            update.zero_grad()
            with torch.no_grad():
                wanted = teacher(inputs)
            mse_loss(model(inputs), wanted).backward()
            update.step()

    assert_all_hold(judge, train)


def test_compiled_model(judge: Judge) -> None:
    """torch.compile wraps the model; its state is that of the module inside."""

    def train(job: Job) -> None:
        model = plain.network(dropout=0.0, norm=False)
        compiled = torch.compile(model, backend="aot_eager")
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(compiled(inputs), targets).backward()
            update.step()

    assert_all_hold(judge, train)


def test_shuffled_loader_with_workers(judge: Judge) -> None:
    """Worker processes load the data; the order of an epoch comes from a generator that is saved."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        generator = torch.Generator().manual_seed(1)
        data = torch.utils.data.TensorDataset(*plain.samples())
        loader = torch.utils.data.DataLoader(data, plain.BATCH, shuffle=True, generator=generator, num_workers=1)
        saver = plain.Saver(job, model=model, optimizer=update)
        last_epoch_state = generator.get_state()
        step = saver.load()
        per_epoch = len(loader)
        for _ in range(step // per_epoch):  # the generator moves on by an epoch's draws each time
            list(loader.sampler)
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        del last_epoch_state
        skip = step % per_epoch
        while step < LAST:
            rng = torch.get_rng_state()
            for number, (inputs, targets) in enumerate(loader):
                if number < skip:
                    continue
                if number == skip and skip:
                    torch.set_rng_state(rng)
                skip = 0
                step += 1
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                if step % EVERY == 0 or step == LAST:
                    saver.save(step)
                if step == LAST:
                    break

    assert_all_hold(judge, train)


def test_tied_weights(judge: Judge) -> None:
    """Two names share one tensor; the file holds it under both."""

    def train(job: Job) -> None:
        model = torch.nn.ModuleDict(
            {"inner": torch.nn.Linear(plain.FEATURES, 5), "outer": torch.nn.Linear(5, plain.FEATURES)}
        )
        outer = torch.nn.Linear(plain.FEATURES, plain.FEATURES)
        tied = torch.nn.Linear(plain.FEATURES, plain.FEATURES)
        tied.weight = outer.weight
        network = torch.nn.Sequential(model["inner"], model["outer"], outer, tied)
        update = torch.optim.AdamW(network.parameters(), lr=0.01)
        saver = plain.Saver(job, model=network, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, _ = plain.batch(step)
            update.zero_grad()
            mse_loss(network(inputs), inputs).backward()
            update.step()

    assert_all_hold(judge, train)


def test_saved_in_half_precision_beside_the_state(judge: Judge) -> None:
    """An export in bfloat16 next to the full checkpoints is recognised as the same step."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        for step in plain.steps(saver, LAST, EVERY):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
        half = {name: value.bfloat16() for name, value in model.state_dict().items()}
        torch.save(half, job.path / "export.pt")

    assert_all_hold(judge, train)
