"""The contracts on what is saved: each broken in the ways that real repositories know, with the mended job beside it."""

from __future__ import annotations

import atexit
import copy
import io
import json
import os
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.contents import Faithful
from pytest_ckpt.contracts.saving import Count, FinalStep
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Contract, Finding, Job

LAST: Final = 7


class Training:
    """A loop that calls back after each step, when the model and the optimizer are those of that step."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = plain.network()
        self.update = torch.optim.AdamW(self.model.parameters(), lr=0.05)

    def state(self, step: int) -> dict[str, Any]:
        """Return everything, not copied."""
        return {"model": self.model.state_dict(), "optimizer": self.update.state_dict(), "step": step}

    def save(self, step: int, name: str = "step_{step}.pt") -> None:
        """Save everything."""
        torch.save(self.state(step), self.job.path / name.format(step=step))

    def step(self, number: int) -> None:
        """Train one step."""
        inputs, targets = plain.batch(number)
        self.update.zero_grad()
        cross_entropy(self.model(inputs), targets).backward()
        self.update.step()

    def run(self, after: Callable[[Training, int], object]) -> None:
        """Train all steps."""
        for number in range(1, LAST + 1):
            self.step(number)
            after(self, number)


def training(after: Callable[[Training, int], object]) -> Callable[[Job], None]:
    """Return a job that calls back after each step."""
    return lambda job: Training(job).run(after)


def violation(judge: Judge, train: Callable[[Job], object], contract: Contract) -> Finding:
    """Return the first finding of a contract that must be broken."""
    verdict = judge(train, contract)[contract.name]
    assert "violated" == verdict.status, verdict
    return verdict.findings[0]


def assert_holds(judge: Judge, train: Callable[[Job], object], contract: Contract) -> None:
    """Fail unless the contract holds."""
    verdict = judge(train, contract)[contract.name]
    assert "held" == verdict.status, verdict


def every(interval: int, *, last: bool) -> Callable[[Training, int], object]:
    """Save every so many steps, and after the last one if asked to."""
    return lambda t, n: t.save(n) if n % interval == 0 or (last and n == LAST) else None


# -- final_step --------------------------------------------------------------------------------------------------------


def test_an_interval_that_does_not_divide_the_steps_loses_the_last_ones(judge: Judge) -> None:
    """Saves at 3 and 6 of 7 steps lose the last; one more save at the end mends it."""
    finding = violation(judge, training(every(3, last=False)), FinalStep())
    assert "training ended at step 7 and the newest checkpoint is of step 6: step 7 is lost" == finding.title
    assert (7, "final step") == (finding.step, finding.component)
    assert ("saved at", "steps 3, 6") in finding.rows
    assert_holds(judge, training(every(3, last=True)), FinalStep())


def test_a_last_save_that_rotation_deletes(judge: Judge) -> None:
    """The newest checkpoint was written and deleted again."""

    def after(t: Training, n: int) -> None:
        every(3, last=True)(t, n)
        if n == LAST:
            (t.job.path / "step_7.pt").unlink()

    def in_a_later_step(t: Training, n: int) -> None:
        if n == 5:
            t.save(n)
        if n == 6:
            t.save(n)
        if n == LAST:
            t.save(n)
            (t.job.path / "step_5.pt").unlink()

    finding = violation(judge, training(after), FinalStep())
    assert "training ended at step 7 and the newest checkpoint is of step 6: step 7 is lost" == finding.title
    assert_holds(judge, training(in_a_later_step), FinalStep())


def test_no_checkpoint_at_all(judge: Judge) -> None:
    """A job that saves nothing, or elsewhere, is told so."""
    finding = violation(judge, training(lambda *_: None), FinalStep())
    assert "training ended at step 7 and no checkpoint was saved" == finding.title


def test_a_save_outside_of_the_directory_is_named(judge: Judge, tmp_path: Path) -> None:
    """What was saved elsewhere is no checkpoint of the job, and the message says where it went."""
    finding = violation(
        judge,
        training(lambda t, n: torch.save(t.state(n), tmp_path / "elsewhere.pt") if n == LAST else None),
        FinalStep(),
    )
    assert str(tmp_path / "elsewhere.pt") in finding.cause


def test_a_save_outside_of_the_directory_is_named_as_it_is_in_the_end(judge: Judge, tmp_path: Path) -> None:
    """It may have been written to a temporary name, which says nothing to anybody."""

    def save(t: Training, n: int) -> None:
        if n == LAST:
            torch.save(t.state(n), tmp_path / ".elsewhere.pt.tmp")
            (tmp_path / ".elsewhere.pt.tmp").replace(tmp_path / "elsewhere.pt")

    (tmp_path / "where").touch()
    os.utime(tmp_path / "where", (0, 0))
    cause = violation(judge, training(save), FinalStep()).cause
    assert f"the job saved outside ckpt_job.dir: {tmp_path / 'elsewhere.pt'}." == cause


@pytest.mark.parametrize("registers", [True, False])
def test_a_save_as_python_ends(judge: Judge, *, registers: bool) -> None:
    """What is registered with atexit is saved in a real run, so it is here."""

    def train(job: Job) -> None:
        trained = Training(job)
        if registers:
            atexit.register(trained.save, LAST)
        trained.run(every(3, last=False))

    verdict = judge(train, FinalStep())["final_step"]
    assert ("held" if registers else "violated") == verdict.status, str(judge)


def test_the_last_save_has_the_model_only(judge: Judge) -> None:
    """Where other checkpoints can continue training, the last one must too, unless an export is all that is promised."""

    def after(t: Training, n: int) -> None:
        if n == 4:
            t.save(n)
        if n == LAST:
            torch.save(t.model.state_dict(), t.job.path / "final.pt")

    finding = violation(judge, training(after), FinalStep())
    assert "is saved as weights only in final.pt" in finding.title
    assert_holds(judge, training(after), FinalStep(weights_only=True))


def test_weights_are_enough_where_nothing_else_is_ever_saved(judge: Judge) -> None:
    """A job that only ever exports weights promises no more."""
    export = training(lambda t, n: torch.save(t.model.state_dict(), t.job.path / f"{n}.pt") if n in {4, LAST} else None)
    assert_holds(judge, export, FinalStep())


def test_the_last_file_is_cut_short(judge: Judge) -> None:
    """A truncated file is no checkpoint, whatever its name."""

    def after(t: Training, n: int) -> None:
        if n == LAST:
            t.save(n)
            path = t.job.path / "step_7.pt"
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    finding = violation(judge, training(after), FinalStep())
    assert "the checkpoint of step 7 is damaged: step_7.pt" in finding.title


def test_the_best_model_loaded_at_the_end_is_not_the_last_step(judge: Judge) -> None:
    """Loading an older state before the last save loses the last step."""

    def train(job: Job, *, save_first: bool) -> None:
        t = Training(job)
        best: dict[str, Any] = {}
        for n in range(1, LAST + 1):
            t.step(n)
            if n == 4:
                best = copy.deepcopy(t.state(n))
        if save_first:
            t.save(LAST)
        t.model.load_state_dict(best["model"])
        torch.save(t.model.state_dict(), job.path / "best.pt")

    finding = violation(judge, lambda job: train(job, save_first=False), FinalStep())
    assert "best.pt was saved for step 7 and holds the state of step 4" == finding.title
    assert_holds(judge, lambda job: train(job, save_first=True), FinalStep())


def test_a_job_that_trains_nothing_is_undecided(judge: Judge) -> None:
    """Without a step there is no last one."""
    verdict = judge(lambda job: torch.save({"x": torch.ones(3)}, job.path / "x.pt"), FinalStep())["final_step"]
    assert ("inconclusive", "no optimizer step was seen") == (verdict.status, verdict.sentence)


# -- count -------------------------------------------------------------------------------------------------------------


def test_checkpoints_are_counted(judge: Judge) -> None:
    """Three saves are three checkpoints, not two and not four."""
    train = training(every(3, last=True))
    assert_holds(judge, train, Count(3))
    assert "3 checkpoints on disk, expected 2" == violation(judge, train, Count(2)).title
    finding = violation(judge, train, Count(4))
    assert "3 checkpoints on disk, expected 4" == finding.title
    assert "only 3 were ever saved in 7 steps" in finding.cause


def test_an_export_is_no_checkpoint(judge: Judge) -> None:
    """The mere model beside checkpoints that can continue training is not counted."""

    def after(t: Training, n: int) -> None:
        every(3, last=True)(t, n)
        if n == LAST:
            torch.save(t.model.state_dict(), t.job.path / "model.pt")

    assert_holds(judge, training(after), Count(3))


def test_a_wrong_count_is_an_invalid_argument() -> None:
    """The marker's argument is validated when the tests are collected."""
    for wrong in (-1, 2.5, True, "3"):
        with pytest.raises(InvalidArgument, match="n must be a whole number"):
            Count(wrong)  # type: ignore[arg-type]


# -- faithful ----------------------------------------------------------------------------------------------------------


def test_a_stale_copy(judge: Judge) -> None:
    """A state dict that was copied once and saved ever after."""
    copies: list[dict[str, Any]] = []

    def after(t: Training, n: int) -> None:
        if n % 3 == 0:
            copies.append(copy.deepcopy(t.state(n)))
            torch.save(copies[0], t.job.path / f"step_{n}.pt")

    finding = violation(judge, training(after), Faithful())
    assert "step_6.pt was saved for step 6 and holds the state of step 3" == finding.title
    assert "stale copy" in finding.cause
    assert_holds(judge, training(every(3, last=False)), Faithful())


def test_a_state_taken_before_the_update(judge: Judge) -> None:
    """A copy that was taken before the optimizer's step is one step old."""

    def train(job: Job, *, early: bool) -> None:
        t = Training(job)
        for n in range(1, LAST + 1):
            old = copy.deepcopy(t.state(n))
            t.step(n)
            if n % 3 == 0:
                torch.save(old if early else t.state(n), job.path / f"step_{n}.pt")

    finding = violation(judge, lambda job: train(job, early=True), Faithful())
    assert "step_3.pt was saved for step 3 and holds the state of step 2" == finding.title
    assert "before the update" in finding.cause
    assert_holds(judge, lambda job: train(job, early=False), Faithful())


class SlowFile(io.FileIO):
    """A file on which every write waits until the gate is open."""

    def __init__(self, path: Path, gate: threading.Event) -> None:
        super().__init__(path, "w")
        self._gate = gate
        self.reached = threading.Event()

    def write(self, data: Any) -> int:
        self.reached.set()
        self._gate.wait()
        return super().write(data)


@pytest.mark.parametrize("copied", [False, True])
def test_an_asynchronous_save(judge: Judge, *, copied: bool) -> None:
    """A thread that saves while training goes on needs a copy of the state."""

    def train(job: Job) -> None:
        t = Training(job)
        gate = threading.Event()
        writer = threading.Thread()
        for n in range(1, LAST + 1):
            t.step(n)
            if n == 3:
                state = copy.deepcopy(t.state(n)) if copied else t.state(n)
                file = SlowFile(job.path / "step_3.pt", gate)
                writer = threading.Thread(target=torch.save, args=(state, file))
                writer.start()
                file.reached.wait()
            if n == 5:
                gate.set()
                writer.join()

    if copied:
        assert_holds(judge, train, Faithful())
    else:
        finding = violation(judge, train, Faithful())
        assert "asynchronous save" in finding.cause + finding.fix


def test_weights_of_one_step_and_an_optimizer_of_another(judge: Judge) -> None:
    """A checkpoint that was put together from two saves."""
    old: dict[str, Any] = {}

    def after(t: Training, n: int) -> None:
        if n == 3:
            old.update(copy.deepcopy(t.update.state_dict()))
        if n == 6:
            torch.save({"model": t.model.state_dict(), "optimizer": old}, t.job.path / "step_6.pt")

    finding = violation(judge, training(after), Faithful())
    assert "step_6.pt mixes the states of several steps" == finding.title
    assert (("weights", "step 6"), ("optimizer", "step 3")) == finding.rows


def test_a_layer_that_is_not_saved(judge: Judge) -> None:
    """A trained layer that is missing from the file is named."""

    def after(t: Training, n: int) -> None:
        if n == 6:
            torch.save(
                {"model": t.model[:4].state_dict(), "optimizer": t.update.state_dict()}, t.job.path / "step_6.pt"
            )

    finding = violation(judge, training(after), Faithful())
    assert "step_6.pt lacks 2 of 6 trained parameters: 4.bias, 4.weight" == finding.title


def test_a_layer_that_the_last_save_lacks(judge: Judge) -> None:
    """One more save like it would lack the layer, too, so it is not what is asked for; the whole model is enough."""

    def saving(layers: int) -> Callable[[Job], None]:
        return training(lambda t, n: torch.save(t.model[:layers].state_dict(), t.job.path / f"step_{n}.pt"))

    finding = violation(judge, saving(4), FinalStep())
    assert "step_7.pt lacks 2 of 6 trained parameters" in finding.title
    assert "save the whole state dict of everything the optimizer updates." == finding.fix
    assert_holds(judge, saving(5), FinalStep())


def test_a_cast_is_recognised(judge: Judge) -> None:
    """Weights saved in half precision are those of their step."""

    def after(t: Training, n: int) -> None:
        if n % 3 == 0:
            torch.save({name: value.half() for name, value in t.model.state_dict().items()}, t.job.path / f"{n}.pt")

    verdict = judge(training(after), Faithful())["faithful"]
    assert ("held", ("saved weights were recognised under: cast",)) == (verdict.status, verdict.notes), verdict


def test_weights_that_nobody_has_seen_are_undecided(judge: Judge) -> None:
    """A save that changes every tensor can't be matched: not held, and not broken."""

    def after(t: Training, n: int) -> None:
        if n % 3 == 0:
            torch.save({name: value + 1.0 for name, value in t.model.state_dict().items()}, t.job.path / f"{n}.pt")

    verdict = judge(training(after), Faithful())["faithful"]
    assert "inconclusive" == verdict.status, verdict
    assert "could not be recognised" in verdict.sentence


# -- what nobody can recognise -----------------------------------------------------------------------------------------


def as_json(t: Training, n: int) -> None:
    """Save the weights as text."""
    if n % 3 == 0 or n == LAST:
        weights = {name: value.tolist() for name, value in t.model.state_dict().items()}
        (t.job.path / f"step_{n}.json").write_text(json.dumps(weights), encoding="utf-8")


def test_files_of_an_unknown_format_are_undecided(judge: Judge) -> None:
    """Checkpoints in JSON may be there: nothing is broken, nothing held, and `layout` is what helps."""
    verdicts = judge(training(as_json), FinalStep(), Count(3), Faithful())
    assert dict.fromkeys(verdicts, "inconclusive") == {name: verdict.status for name, verdict in verdicts.items()}
    finding = verdicts["final_step"].findings[0]
    assert finding.title.endswith("step_3.json, step_6.json, step_7.json")
    assert "ckpt_job.layout" in finding.fix


def test_a_log_is_no_checkpoint(judge: Judge) -> None:
    """A file that was there before the first step, or grows line by line, excuses no job that saves nothing."""

    def train(job: Job) -> None:
        (job.path / "config.json").write_text("{}", encoding="utf-8")

        def log(t: Training, n: int) -> None:
            with (t.job.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(f"step {n}\n")

        Training(job).run(log)

    finding = violation(judge, train, FinalStep())
    assert "training ended at step 7 and no checkpoint was saved" == finding.title


def test_a_declared_folder_is_one_checkpoint(judge: Judge) -> None:
    """The glob of a layout stays within one folder: files inside of a checkpoint are none of their own."""

    def after(t: Training, n: int) -> None:
        if n % 3 == 0:
            folder = t.job.path / f"step_{n}"
            folder.mkdir()
            torch.save(t.model.state_dict(), folder / "model.pt")
            torch.save(t.update.state_dict(), folder / "step_optimizer.pt")

    def train(job: Job) -> None:
        job.layout("step_*")
        Training(job).run(after)

    assert_holds(judge, train, Count(2))
    assert_holds(judge, train, Faithful())


def test_declared_steps_date_the_saves_that_follow_them(judge: Judge) -> None:
    """Without an optimizer of torch, `ckpt_job.step()` is the clock, and what the files hold is undecided."""

    def train(job: Job) -> None:
        job.layout("step_*.pt")
        weight = torch.zeros(3)
        for n in range(1, LAST + 1):
            weight += n
            job.step()
            if n % 3 == 0:
                torch.save({"weight": weight}, job.path / f"step_{n}.pt")

    verdicts = judge(train, Count(2), Faithful(), FinalStep())
    assert {"count": "held", "faithful": "inconclusive", "final_step": "violated"} == {
        name: verdict.status for name, verdict in verdicts.items()
    }
    assert (3, 6) == judge.baseline.saved_steps


# -- weights that are saved in another arrangement ---------------------------------------------------------------------


def arranged(change: Callable[[torch.Tensor], list[torch.Tensor]]) -> Callable[[Job], None]:
    """Return a job that saves each matrix as what `change` makes of it, under numbered names."""

    def save(training: Training, step: int) -> None:
        weights: dict[str, torch.Tensor] = {}
        for name, tensor in training.model.state_dict().items():
            parts = change(tensor) if tensor.dim() > 1 else [tensor]
            weights |= {f"{name}.{number}": part.clone() for number, part in enumerate(parts)}
        if step % 3 == 0 or step == LAST:
            torch.save({**training.state(step), "model": weights}, training.job.path / f"step_{step}.pt")

    return training(save)


@pytest.mark.parametrize("change", [lambda t: [t.T], lambda t: list(t.chunk(2))], ids=["transposed", "in_parts"])
def test_weights_in_another_arrangement(judge: Judge, change: Callable[[torch.Tensor], list[torch.Tensor]]) -> None:
    """They are there by the number of their elements; the others and the optimizer tell the step."""
    verdicts = judge(arranged(change), Faithful(), FinalStep())
    assert {"held"} == {verdict.status for verdict in verdicts.values()}, verdicts
    assert any("2 of 6 trained parameters are saved in another arrangement" in n for n in verdicts["faithful"].notes)


def test_half_of_the_weights(judge: Judge) -> None:
    """With half of each matrix left out, parameters are missing."""
    verdicts = judge(arranged(lambda t: [t.chunk(2)[0]]), Faithful(), FinalStep())
    assert {"violated"} == {verdict.status for verdict in verdicts.values()}, verdicts
    assert "lacks 2 of 6 trained parameters" in verdicts["faithful"].sentence
