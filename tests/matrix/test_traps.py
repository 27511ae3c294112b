"""No false alarm: loops that do what makes naive hooks count wrongly, read too early or take other things for training state."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from jobs import plain
from pytest_ckpt.contracts import builtin
from pytest_ckpt.contracts.loading import Loadable
from pytest_ckpt.contracts.resuming import Resumable
from pytest_ckpt.contracts.retention import Retention
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.contracts.scheduling import Steps
from pytest_ckpt.contracts.size import Compact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.synchronize import Event

    from conftest import Judge
    from pytest_ckpt import Contract, Job

LAST: Final = 7
EVERY: Final = 3


def train_with(
    job: Job, model: Any, call: Callable[[torch.Tensor], torch.Tensor], after: Callable[[int], object] | None = None
) -> None:
    """Train a model by AdamW through `call`, and save it as it is."""
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update)
    for step in plain.steps(saver, LAST, EVERY):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(call(inputs), targets).backward()
        update.step()
        if after is not None:
            after(step)


def compiled_in_place(job: Job) -> None:
    """`module.compile` in one graph, which hooks on modules would break."""
    model = plain.network()
    model.compile(backend="aot_eager", fullgraph=True)
    train_with(job, model, model)


def functional_call(job: Job) -> None:
    """A forward pass that gets its parameters as arguments."""
    model = plain.network(norm=False, dropout=0.0)
    train_with(job, model, lambda x: torch.func.functional_call(model, dict(model.named_parameters()), (x,)))


def vmap(job: Job) -> None:
    """A forward pass on batched tensors, which can't be read."""
    model = plain.network(norm=False, dropout=0.0)
    train_with(job, model, torch.vmap(model))


def weight_norm(job: Job) -> None:
    """Parametrized weights: what is trained is not what is multiplied."""
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(plain.FEATURES, 8))
    model = torch.nn.Sequential(layer, torch.nn.Tanh(), torch.nn.Linear(8, plain.CLASSES))
    train_with(job, model, model)


def lazy_layers(job: Job) -> None:
    """A forward pass before training that only gives lazy layers their shape."""
    model = torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.Tanh(), torch.nn.Linear(8, plain.CLASSES))
    model(plain.samples()[0])
    train_with(job, model, model)


def recurrent(job: Job) -> None:
    """An LSTM with dropout between its layers."""
    model = Recurrent()
    train_with(job, model, model)


class Recurrent(torch.nn.Module):
    """Reads the features one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = torch.nn.LSTM(1, 5, num_layers=2, dropout=0.1, batch_first=True)
        self.head = torch.nn.Linear(5, plain.CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        hidden, _ = self.cells(x.unsqueeze(-1))
        return torch.as_tensor(self.head(hidden[:, -1]))


def parameters_without_a_module(job: Job) -> None:
    """A loop with bare tensors: no module is ever called."""
    weight = torch.nn.Parameter(torch.randn(plain.FEATURES, plain.CLASSES))
    bias = torch.nn.Parameter(torch.randn(plain.CLASSES))
    model = torch.nn.ParameterDict({"weight": weight, "bias": bias})
    train_with(job, model, lambda x: x @ weight + bias)


def sparse_gradients(job: Job) -> None:
    """Gradients whose elements can't be read; the updates that they lead to can."""
    embedding, head = torch.nn.Embedding(20, 4, sparse=True), torch.nn.Linear(4, plain.CLASSES)
    sparse = torch.optim.SparseAdam(embedding.parameters(), lr=0.01)
    dense = torch.optim.Adam(head.parameters(), lr=0.01)
    saver = plain.Saver(job, embedding=embedding, head=head, sparse=sparse, dense=dense)
    for step in plain.steps(saver, LAST, EVERY):
        inputs, targets = plain.batch(step)
        sparse.zero_grad()
        dense.zero_grad()
        tokens = (inputs[:, 0].abs() * 5).long().clamp(0, 19)
        cross_entropy(head(embedding(tokens)), targets).backward()
        sparse.step()
        dense.step()


def evaluation_without_no_grad(job: Job) -> None:
    """An evaluation right after a save that forgot `no_grad`: a resumed run does not see its batch."""
    model = plain.network()

    def evaluate(step: int) -> None:
        if step % EVERY == 0:
            model.eval()
            model(plain.samples()[0]).sum().item()
            model.train()

    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update)
    for step in range(saver.load() + 1, LAST + 1):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        if step % EVERY == 0 or step == LAST:
            saver.save(step)
        evaluate(step)


def evaluation_with_averaged_weights(job: Job) -> None:
    """The averaged weights are put into the model for an evaluation, and its own come back."""
    model = plain.network()
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8))
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update, ema=average)
    for step in plain.steps(saver, LAST, EVERY):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        average.update_parameters(model)
        if step % 2 == 0:
            own = copy.deepcopy(model.state_dict())
            with torch.no_grad():
                for mine, averaged in zip(model.parameters(), average.module.parameters(), strict=True):
                    mine.copy_(averaged)
                model.eval()(plain.samples()[0])
            model.train().load_state_dict(own)


def best_weights_kept_in_memory(job: Job) -> None:
    """A copy of the weights for later is no average of them."""
    model = plain.network()
    kept: list[dict[str, Any]] = []
    train_with(
        job, model, model, lambda step: kept.append(copy.deepcopy(model.state_dict())) if step in {2, 5} else None
    )


def best_weights_beside_the_checkpoints(job: Job) -> None:
    """best.pt holds an older step than the checkpoints beside it, as it should."""
    model = plain.network()
    path = job.path / "best.pt"
    train_with(job, model, model, lambda step: torch.save(model.state_dict(), path) if step in {2, 5} else None)


class Masters:
    """Weights in full precision, and their copies in a model that computes in half of it."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.weights = [value.detach().float().requires_grad_() for value in model.parameters()]

    def take_gradients(self) -> None:
        for master, value in zip(self.weights, self.model.parameters(), strict=True):
            assert value.grad is not None
            master.grad = value.grad.float()

    @torch.no_grad()
    def give_weights(self) -> None:
        for master, value in zip(self.weights, self.model.parameters(), strict=True):
            value.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": [master.detach().clone() for master in self.weights]}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for master, saved in zip(self.weights, state["weights"], strict=True):
            master.copy_(saved)
        self.give_weights()


def half_precision_with_masters(job: Job) -> None:
    """The optimizer updates copies in full precision; the model gets them back rounded."""
    model = plain.network(norm=False, dropout=0.0).bfloat16()
    masters = Masters(model)
    update = torch.optim.AdamW(masters.weights, lr=0.01)
    saver = plain.Saver(job, masters=masters, model=model, optimizer=update)
    for step in plain.steps(saver, LAST, EVERY):
        inputs, targets = plain.batch(step)
        model.zero_grad()
        cross_entropy(model(inputs.bfloat16()).float(), targets).backward()
        masters.take_gradients()
        update.step()
        masters.give_weights()


def learning_rate_set_by_hand(job: Job) -> None:
    """No scheduler: the loop writes the learning rate itself."""
    model = plain.network()
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update)
    for step in plain.steps(saver, LAST, EVERY):
        for group in update.param_groups:
            group["lr"] = 0.01 / step
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()


def scheduler_rebuilt_from_the_step(job: Job) -> None:
    """The scheduler is not saved: it is built anew at the step that was restored."""
    model = plain.network()
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update)
    start = saver.load()
    scheduler = torch.optim.lr_scheduler.LambdaLR(update, lambda step: 1 / (step + 1), last_epoch=start - 1)
    for step in range(start + 1, LAST + 1):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        scheduler.step()
        if step % EVERY == 0 or step == LAST:
            saver.save(step)


def saved_by_another_process(job: Job) -> None:
    """A forked process writes while training goes on; at the end it is waited for, as an interpreter does."""
    model = plain.network()
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update)
    for step in range(saver.load() + 1, LAST + 1):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        if step % EVERY == 0 or step == LAST:
            multiprocessing.get_context("fork").Process(target=saver.save, args=(step,)).start()


def saved_by_a_process_that_is_slow(job: Job) -> None:
    """The file is empty for two steps, as on a machine that is busy, before anything is written to it."""
    context = multiprocessing.get_context("fork")
    model = plain.network()
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update)
    pending: list[tuple[int, Event]] = []
    for step in range(saver.load() + 1, LAST + 1):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        if step % EVERY == 0 or step == LAST:
            path, opened, go_on = job.path / f"step_{step}.pt", context.Event(), context.Event()

            def save(step: int = step, path: Path = path, opened: Event = opened, go_on: Event = go_on) -> None:
                path.touch()
                opened.set()
                go_on.wait(60)
                saver.save(step)

            context.Process(target=save).start()
            opened.wait(60)
            pending.append((step, go_on))
        for begun, go_on in pending:
            if step >= begun + 2 or step == LAST:
                go_on.set()


def written_under_a_temporary_name(job: Job) -> None:
    """Each checkpoint is renamed into place, and a link and a text file name the newest."""
    model = plain.network()
    update = torch.optim.AdamW(model.parameters(), lr=0.01)
    saver = plain.Saver(job, model=model, optimizer=update, name="writing.pt")
    for step in range(saver.load() + 1, LAST + 1):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        if step % EVERY == 0 or step == LAST:
            saver.save(step)
            os.replace(job.path / "writing.pt", job.path / f"step_{step}.pt")  # noqa: PTH105 - as training code does
            (job.path / "latest").unlink(missing_ok=True)
            (job.path / "latest").symlink_to(f"step_{step}.pt")
            (job.path / "latest.txt").write_text(f"step_{step}.pt", encoding="utf-8")


def pickled_numpy_arrays(job: Job) -> None:
    """A file of another kind, written by `pickle`."""
    model = plain.network(norm=False)
    update = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    rng, start = plain.RandomStates(), 0
    if job.resume_from is not None:
        state = pickle.loads(Path(job.resume_from).read_bytes())  # noqa: S301 - our own file
        start = state["step"]
        model.load_state_dict({name: torch.from_numpy(value) for name, value in state["model"].items()})
        update.load_state_dict(state["optimizer"])
        rng.load_state_dict(state["rng"])
    for step in range(start + 1, LAST + 1):
        inputs, targets = plain.batch(step)
        update.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        update.step()
        if step % EVERY == 0 or step == LAST:
            arrays = {name: value.numpy() for name, value in model.state_dict().items()}
            state = {"step": step, "model": arrays, "optimizer": update.state_dict(), "rng": rng.state_dict()}
            (job.path / f"step_{step}.pkl").write_bytes(pickle.dumps(state))


TRAPS: Final = [
    compiled_in_place,
    functional_call,
    vmap,
    weight_norm,
    lazy_layers,
    recurrent,
    parameters_without_a_module,
    sparse_gradients,
    evaluation_without_no_grad,
    evaluation_with_averaged_weights,
    best_weights_kept_in_memory,
    best_weights_beside_the_checkpoints,
    half_precision_with_masters,
    learning_rate_set_by_hand,
    scheduler_rebuilt_from_the_step,
    saved_by_another_process,
    saved_by_a_process_that_is_slow,
    written_under_a_temporary_name,
    pickled_numpy_arrays,
]


def _given() -> tuple[Contract, ...]:
    return Count(3), Steps(every=EVERY), Retention(3), Compact(), Loadable()


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning", "ignore:Detected call of:UserWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("train", TRAPS, ids=lambda train: str(train.__name__))
def test_correct_loops_hold(judge: Judge, train: Callable[[Job], None]) -> None:
    """Every contract holds."""
    given: dict[str, Contract] = {one.name: one for one in _given()}
    kinds = [kind for kind in builtin() if kind.name != "best"]  # nobody tells a metric
    verdicts = judge(train, *[one for kind in kinds if (one := given.get(kind.name) or kind.default()) is not None])
    assert {} == {name: verdict for name, verdict in verdicts.items() if verdict.status != "held"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_a_kernel_chosen_by_warm_up_is_no_broken_resume(judge: Judge) -> None:
    """torch.jit computes its first passes by other kernels than the later ones: undecided, and held within a tolerance."""

    def train(job: Job) -> None:
        model = torch.jit.script(plain.network(norm=False))
        train_with(job, model, model)

    verdict = judge(train, Resumable())["resumable"]
    assert ("inconclusive", True) == (verdict.status, "in the last bits" in verdict.sentence), verdict
    assert "held" == judge(train, Resumable(tolerance=1e-5))["resumable"].status


def test_a_loader_that_is_iterated_again_draws_a_seed(judge: Judge) -> None:
    """Skipping batches after the random states were restored leaves them one draw ahead: dropout differs."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.01)
        saver = plain.Saver(job, model=model, optimizer=update)
        loader = DataLoader(TensorDataset(*plain.samples()), plain.BATCH)
        step = saver.load()
        while step < LAST:
            for place, (inputs, targets) in enumerate(loader):
                if place < step % len(loader) or step == LAST:
                    continue
                update.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                update.step()
                step += 1
                if step % EVERY == 0 or step == LAST:
                    saver.save(step)

    verdict = judge(train, Resumable())["resumable"]
    assert "violated" == verdict.status, verdict
    assert ("rng", 4) == (verdict.findings[0].component, verdict.findings[0].step)
    assert "draws a seed" in verdict.findings[0].cause


def test_parameters_that_an_optimizer_shows_first_bear_the_names_of_their_model(judge: Judge) -> None:
    """Where the forward pass runs inside the optimizer's step, parameters are met before the model that owns them."""

    def train(job: Job) -> None:
        model = plain.network(norm=False, dropout=0.0)
        update = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)

            def closure() -> float:
                update.zero_grad()
                loss = cross_entropy(model(inputs), targets)  # noqa: B023 - called at once
                loss.backward()
                return loss.item()

            update.step(closure)
        torch.save(model.state_dict(), job.path / "last.pt")

    verdict = judge(train, FinalStep())["final_step"]
    assert "held" == verdict.status
    names = {f"Sequential:{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")}
    for step in judge.baseline.steps:
        assert names == set(step.state["weights"]) == set(step.state["update"])
        assert {f"{name}/momentum_buffer" for name in names} >= set(step.state["optimizer"])
