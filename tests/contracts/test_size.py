"""The contract on how large a checkpoint is: views, copies, base weights and baggage, with the mended job beside each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from transformers import Trainer

from jobs import hf, plain
from pytest_ckpt import tiny
from pytest_ckpt.contracts.size import Compact
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Finding, Job

LAST: Final = 4
ROW: Final = 1000

#: What a release warns of is no business of a job that runs on several.
pytestmark = pytest.mark.filterwarnings("default")


def saving(extra: Callable[[torch.nn.Sequential], dict[str, Any]], *, width: int = 8) -> Callable[[Job], None]:
    """Return a job that saves something beside the model and the optimizer."""

    def train(job: Job) -> None:
        model = plain.network(width=width)
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        for step in range(1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
        state = {"model": model.state_dict(), "optimizer": update.state_dict(), **extra(model)}
        torch.save(state, job.path / "step_4.pt")

    return train


def violation(judge: Judge, train: Callable[[Job], object], slack: float = 1.1) -> Finding:
    """Return the finding of the contract, which must be broken."""
    verdict = judge(train, Compact(slack))["compact"]
    assert "violated" == verdict.status, verdict
    (finding,) = verdict.findings
    assert ("size", 4) == (finding.component, finding.step)
    return finding


def assert_holds(judge: Judge, train: Callable[[Job], object], slack: float = 1.1) -> None:
    """Fail unless the contract holds."""
    verdict = judge(train, Compact(slack))["compact"]
    assert "held" == verdict.status, verdict


def big() -> torch.Tensor:
    """Return rows of numbers, four megabytes together."""
    return torch.arange(ROW * ROW, dtype=torch.float32).reshape(ROW, ROW)


def test_a_view_drags_its_memory_along(judge: Judge) -> None:
    """One row of a large tensor is saved with all the others; a copy of it is not."""
    finding = violation(judge, saving(lambda _: {"row": big()[3]}))
    assert finding.title.startswith("step_4.pt has 4.0 MB for ")
    assert finding.title.endswith("of tensors, more than 1.1 times; most of it is row in step_4.pt")
    assert (("view", "row in step_4.pt: 4000000 bytes stored, 4000 needed"),) == finding.rows
    assert "tensor.clone()" in finding.fix
    assert_holds(judge, saving(lambda _: {"row": big()[3].clone()}))


def test_views_that_share_all_of_their_memory(judge: Judge) -> None:
    """Rows that are all saved, the whole beside its parts, and columns that fill it, waste nothing."""
    assert_holds(judge, saving(lambda _: {"rows": list(big())}))
    whole = big()
    assert_holds(judge, saving(lambda _: {"whole": whole, "row": whole[3]}))
    assert_holds(judge, saving(lambda _: {"columns": list(big()[:, :50].clone().unbind(1))}))


def test_a_column_that_is_saved_needs_its_own_elements_only(judge: Judge) -> None:
    """A view with gaps covers all of the memory and uses little of it."""
    finding = violation(judge, saving(lambda _: {"column": big()[:, 3]}))
    assert (("view", "column in step_4.pt: 4000000 bytes stored, 4000 needed"),) == finding.rows


def test_the_same_values_are_stored_twice(judge: Judge) -> None:
    """Tied weights that were copied are stored twice; those that share memory, once."""

    def tied(*, copied: bool) -> dict[str, Any]:
        weight = big()
        return {"embedding": weight, "head": weight.clone() if copied else weight}

    finding = violation(judge, saving(lambda _: tied(copied=True)))
    row = "head in step_4.pt: 4000000 bytes stored, 0 needed, as embedding in step_4.pt"
    assert (("copy", row),) == finding.rows
    assert_holds(judge, saving(lambda _: tied(copied=False)))
    assert_holds(judge, saving(lambda _: tied(copied=True)), slack=2.5)


def test_zeros_are_no_copies_of_each_other(judge: Judge) -> None:
    """Moments that are still zero are of different parameters."""
    assert_holds(judge, saving(lambda _: {"first": torch.zeros(ROW, ROW), "second": torch.zeros(ROW, ROW)}))


def test_something_that_is_no_tensor(judge: Judge) -> None:
    """A list of numbers takes more than the tensors."""
    finding = violation(judge, saving(lambda _: {"history": [float(number) for number in range(20_000)]}))
    assert finding.title.endswith("most of it is no tensor, in step_4.pt")
    assert "a list of numbers" in finding.cause


def test_small_files_are_mostly_headers(judge: Judge) -> None:
    """A fixed allowance keeps tiny checkpoints from looking bloated, those with many tensors too."""
    many = {f"tensor {number}": torch.randn(2) for number in range(500)}
    assert_holds(judge, saving(lambda _: {"many": many, "text": "x" * 10_000}))


def test_a_view_into_its_own_base(judge: Judge) -> None:
    """The row of a model's weight beside the whole is no further memory."""
    assert_holds(judge, saving(lambda model: {"row": next(model.parameters())[0].detach()}, width=2000))


# -- transformers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"save_only_model": True}, {"bf16": True}])
def test_a_trainer_saves_no_more_than_it_needs(judge: Judge, given: dict[str, Any]) -> None:
    """Weights, optimizer, schedule and random states."""
    assert_holds(judge, lambda job: hf.run(job, max_steps=4, save_steps=4, **given))


class Everything(Trainer):  # type: ignore[misc,unused-ignore]
    """A Trainer that saves the base model with the adapter."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        assert self.model is not None
        torch.save(self.model.state_dict(), f"{output_dir}/everything.bin")


def test_base_weights_beside_an_adapter(judge: Judge) -> None:
    """The model under the adapter is not trained, and need not be saved with each checkpoint of it."""
    peft = pytest.importorskip("peft")

    def train(job: Job, kind: type[Trainer]) -> None:
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
        base = tiny.causal_lm(hidden_size=128, intermediate_size=256)
        model = peft.get_peft_model(base, config)
        arguments = hf.arguments(job, max_steps=4, save_steps=4)
        kind(model, arguments, train_dataset=tiny.text()).train()

    finding = violation(judge, lambda job: train(job, Everything))
    assert {"base"} <= {why for why, _ in finding.rows}
    assert "everything.bin" in finding.title
    assert "peft's save_pretrained" in finding.fix
    assert_holds(judge, lambda job: train(job, Trainer))


# -- undecided, and arguments ------------------------------------------------------------------------------------------


def test_nothing_to_measure(judge: Judge) -> None:
    """A job that saves nothing is undecided."""

    def train(job: Job) -> None:
        del job
        model = plain.network()
        update = torch.optim.SGD(model.parameters(), lr=0.05)
        inputs, targets = plain.batch(1)
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        update.step()

    assert "inconclusive" == judge(train, Compact())["compact"].status


def test_it_is_not_in_the_default_set() -> None:
    """How large is too large is for the project to say."""
    assert Compact.default() is None


@pytest.mark.parametrize("wrong", [0.9, True, "1.1", float("nan")])
def test_wrong_arguments(wrong: Any) -> None:
    """The marker's argument is validated when the tests are collected."""
    with pytest.raises(InvalidArgument, match="slack must be how many times"):
        Compact(wrong)
