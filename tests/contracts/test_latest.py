"""Restarts: searches that find the newest checkpoint, that find another, that take a damaged one, and that find nothing."""

from __future__ import annotations

import copy
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.latest import Latest
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Job
    from pytest_ckpt.records.verdict import Verdict

LAST, EVERY = 8, 2


def loop(  # noqa: PLR0913 - each is one way in which jobs differ
    find: Callable[[Path], Path | None],
    *,
    asks: bool = True,
    checks: bool = True,
    ends: bool = True,
    parts: int = 1,
    name: Callable[[int], str] = "step_{}".format,
    mark: Callable[[Path], object] = lambda _: None,
) -> Callable[[Job], None]:
    """Return a plain loop that searches by `find` when it is started again.

    Args:
        asks: whether it searches where it is told of a restart; otherwise it never does.
        checks: whether it fails where it is told of a checkpoint that is not there.
        ends: whether it trains no more when the last step is restored.
        parts: in how many files it saves; the second holds the optimizer and may be missing.
        name: how it calls what it saves after a step.
        mark: done once that is saved.
    """

    def train(job: Job) -> None:
        torch.manual_seed(0)
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        path = Path(job.resume_from) if job.resume_from else find(job.path) if asks and job.restarting else None
        start = 0
        if path is not None and (checks or path.exists()):
            start = load(path, model, update)
        last = LAST if ends else max(LAST, start + 1)
        for step in range(start + 1, last + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % EVERY == 0:
                save(job.path / name(step), step, model, update, parts)
                mark(job.path / name(step))

    return train


def save(folder: Path, step: int, model: torch.nn.Module, update: torch.optim.Optimizer, parts: int) -> None:
    """Save into a folder: one file, or two."""
    folder.mkdir()
    state: dict[str, Any] = {"model": model.state_dict(), "rng": torch.get_rng_state(), "step": step}
    if parts == 1:
        state["optimizer"] = update.state_dict()
    else:
        torch.save(update.state_dict(), folder / "optimizer.pt")
    torch.save(state, folder / "state.pt")


def load(folder: Path, model: torch.nn.Module, update: torch.optim.Optimizer) -> int:
    """Load what `save` wrote; an optimizer that is missing is not missed."""
    state = torch.load(folder / "state.pt")
    model.load_state_dict(state["model"])
    if "optimizer" in state:
        update.load_state_dict(state["optimizer"])
    elif (folder / "optimizer.pt").exists():
        update.load_state_dict(torch.load(folder / "optimizer.pt"))
    torch.set_rng_state(state["rng"])
    return int(state["step"])


def number(path: Path) -> int:
    """Return the number in a name."""
    return int(re.findall(r"\d+", path.name)[-1])


def highest(folder: Path) -> Path | None:
    """Find the folder of the highest step."""
    return max(folder.glob("step_*"), key=number, default=None)


def last_written(folder: Path) -> Path | None:
    """Find the folder that was written last."""
    return max(folder.glob("step_*"), key=lambda path: path.stat().st_mtime_ns, default=None)


def last_by_name(folder: Path) -> Path | None:
    """Find the folder whose name comes last."""
    return max(folder.glob("step_*"), default=None)


def first(folder: Path) -> Path | None:
    """Find the folder of the lowest step."""
    return min(folder.glob("step_*"), key=number, default=None)


def elsewhere(folder: Path) -> Path | None:
    """Search by a name that nothing is saved under."""
    return max(folder.glob("checkpoint_*"), default=None)


def whole(folder: Path) -> Path | None:
    """Find the newest folder that can be loaded."""
    for path in sorted(folder.glob("step_*"), key=number, reverse=True):
        try:
            torch.load(path / "state.pt")
        except Exception:  # noqa: BLE001, S112 - whatever a damaged file raises
            continue
        return path
    return None


def whole_or_nothing(folder: Path) -> Path | None:
    """Take the newest folder, and start afresh where it can't be loaded."""
    newest = highest(folder)
    return newest if newest is not None and newest == whole(folder) else None


def marked(folder: Path) -> Path | None:
    """Find the newest folder without a mark that it is unfinished."""
    found = [path for path in folder.glob("step_*") if not (path / "checkpoint-is-incomplete.txt").exists()]
    return max(found, key=number, default=None)


def touch_done(path: Path) -> None:
    """Leave a mark beside what is saved."""
    path.with_suffix(".done").touch()


def done(folder: Path) -> list[Path]:
    """Return the folders with that mark."""
    return [path for path in folder.iterdir() if path.is_dir() and path.with_suffix(".done").exists()]


def add_to_index(path: Path) -> None:
    """Add the name of what is saved to the list of all."""
    index = path.with_name("index")
    index.write_text((index.read_text("ascii") if index.exists() else "") + f"{path.name}\n", "ascii")


def indexed(folder: Path) -> Path | None:
    """Find the last of the list that is there."""
    names = (folder / "index").read_text("ascii").split() if (folder / "index").exists() else []
    return next((folder / name for name in reversed(names) if (folder / name).exists()), None)


def its_own_step(folder: Path) -> Path | None:
    """Find the folder of the highest step whose content is of that step."""
    fitting = (path for path in folder.glob("step_*") if torch.load(path / "state.pt")["step"] == number(path))
    return max(fitting, key=number, default=None)


def verdict_of(judge: Judge, job: Callable[[Job], None], **given: bool) -> Verdict:
    """Return the contract's verdict on a job."""
    return judge(job, Latest(**given))["latest"]


@pytest.mark.parametrize("find", [highest, last_written, whole])
def test_the_newest_is_found(judge: Judge, find: Callable[[Path], Path | None]) -> None:
    """By its number or by its time; what is damaged is refused or skipped, and nothing else is asked for."""
    verdict = verdict_of(judge, loop(find))
    assert "held" == verdict.status, verdict
    assert verdict.sentence.startswith(
        "a restart goes on from step 6, the newest of steps 2, 4, 6; with a file missing or cut"
    )


def test_a_damaged_one_is_skipped_where_that_is_asked_for(judge: Judge) -> None:
    """With `fall_back`, refusing is not enough."""
    verdict = verdict_of(judge, loop(whole), fall_back=True)
    assert ("held", True) == (verdict.status, "it takes an older one in 2" in verdict.sentence), verdict
    verdict = verdict_of(judge, loop(highest), fall_back=True)
    assert ("violated", "runs") == (verdict.status, verdict.findings[0].component)
    assert "with step_6/state.pt missing a restart fails, though step 4 is there whole" in verdict.sentence


@pytest.mark.parametrize(
    ("find", "sentence"),
    [
        (first, "a restart went on from step 2, not from step_6, the newest: 4 steps are lost"),
        (elsewhere, "a restart began from scratch beside step_6: 6 steps are lost, and nothing was said"),
        (last_by_name, "with step_6 named step_10 a restart took step 4 for the newest and passed over step 6"),
    ],
)
def test_another_is_found(judge: Judge, find: Callable[[Path], Path | None], sentence: str) -> None:
    """The oldest, none at all, or one by the letters of its name."""
    verdict = verdict_of(judge, loop(find), damaged=False)
    assert ("violated", sentence) == (verdict.status, verdict.sentence)


@pytest.mark.parametrize(
    ("name", "new"),
    [
        pytest.param(lambda step: f"step_{step - 1}", "step_5 named step_10", id="steps from 0"),
        pytest.param(lambda step: f"step_{step // EVERY}", "step_3 named step_10", id="saves"),
        pytest.param(lambda step: f"step_{step:02d}", None, id="zeros"),
        pytest.param(lambda step: f"step_2026-11-29T13-22-5{step}", None, id="times"),
        pytest.param(lambda step: f"step_{1795958894_000000000 + step * 2_500_000}", None, id="nanoseconds"),
    ],
)
def test_numbers_that_count(judge: Judge, name: Callable[[int], str], new: str | None) -> None:
    """Steps from 0, saves, and steps with zeros before; times do not count, and sort by their letters."""
    verdict = verdict_of(judge, loop(last_by_name, name=name), damaged=False)
    assert ("held" if new is None else "violated") == verdict.status, verdict
    assert new is None or f"with {new} a restart took" in verdict.sentence


def test_another_run_leaves_no_later_time(judge: Judge) -> None:
    """Where names hold the time of the save, nothing that is older can have a higher number."""
    verdict = verdict_of(judge, loop(highest, name=lambda step: f"step_13225{step}"), stale=True, damaged=False)
    assert "held" == verdict.status, verdict


@pytest.mark.parametrize(
    ("find", "mark", "status"),
    [
        pytest.param(lambda folder: max(done(folder), key=number, default=None), touch_done, "held", id="marked"),
        pytest.param(lambda folder: max(done(folder), default=None), touch_done, "violated", id="marked, by letters"),
        pytest.param(indexed, add_to_index, "held", id="indexed"),
        pytest.param(its_own_step, lambda _: None, "held", id="says its step"),
    ],
)
def test_a_longer_number_is_passed_over_for_another_reason(
    judge: Judge, find: Callable[[Path], Path | None], mark: Callable[[Path], object], status: str
) -> None:
    """A mark with its name is renamed as well; what no number would be found under is no proof that names are text."""
    verdict = verdict_of(judge, loop(find, mark=mark), damaged=False)
    assert status == verdict.status, verdict
    assert ("held" == status) != ("with step_6 named step_10 a restart took step 4" in verdict.sentence)


def test_nothing_is_said_of_a_damaged_one(judge: Judge) -> None:
    """It starts from scratch beside older ones that are whole."""
    verdict = verdict_of(judge, loop(whole_or_nothing))
    assert ("violated", 1) == (verdict.status, verdict.findings[0].step)
    assert (
        "with step_6/state.pt missing a restart began from scratch, though steps 2, 4 are there whole"
        == verdict.sentence
    )


def test_a_missing_part_is_not_missed(judge: Judge) -> None:
    """The optimizer lies in a file of its own, and the job goes on without it."""
    verdict = verdict_of(judge, loop(highest, parts=2))
    assert ("violated", "optimizer") == (verdict.status, verdict.findings[0].component)
    assert "with step_6/optimizer.pt missing a restart went on all the same, with other optimizer" in verdict.sentence
    assert "so did 1 of 4 restarts with a damaged file" in verdict.sentence
    assert (("optimizer.pt missing", "went on from step 6 with other optimizer"),) == verdict.findings[0].rows


def test_what_another_run_left(judge: Judge) -> None:
    """It is taken for the newest by its number; by its time it is not."""
    verdict = verdict_of(judge, loop(highest), stale=True, damaged=False)
    assert ("violated", True) == (
        verdict.status,
        "a restart took step_9006, which another run left" in verdict.sentence,
    )
    assert "held" == verdict_of(judge, loop(last_written), stale=True, damaged=False).status
    assert "held" == verdict_of(judge, loop(highest), damaged=False).status


def test_what_lay_there_before(judge: Judge) -> None:
    """A directory that a run shares with an older one, whose numbers are higher."""

    def shared(job: Job) -> None:
        if job.is_baseline:
            torch.manual_seed(7)
            model = plain.network()
            save(job.path / "step_900", 900, model, torch.optim.AdamW(model.parameters()), 1)
        loop(highest)(job)

    verdict = verdict_of(judge, shared, damaged=False)
    assert ("violated", True) == (verdict.status, "began from scratch" not in verdict.sentence), verdict


@pytest.mark.parametrize(
    ("find", "sentence"),
    [
        (highest, "a restart went on from step_6, which is incomplete, though step 4 is there whole, and said nothing"),
        (marked, "step_6, the newest, is incomplete, and a restart goes on from step 4"),
    ],
)
def test_the_newest_is_incomplete(judge: Judge, find: Callable[[Path], Path | None], sentence: str) -> None:
    """The save itself left it unfinished: it lacks the optimizer, and is marked."""

    def train(job: Job) -> None:
        cut = torch.save

        def save(state: Any, path: Path) -> None:
            if job.is_baseline and path.parent.name == "step_6" and path.name == "optimizer.pt":
                path.with_name("checkpoint-is-incomplete.txt").touch()
            else:
                cut(state, path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "save", save)
            loop(find, parts=2)(job)

    verdict = verdict_of(judge, train, damaged=False)
    assert (sentence, "violated" if find is highest else "held") == (verdict.sentence, verdict.status)


@pytest.mark.parametrize("name", ["step_{step}.pt", "ckpt.pt"])
def test_a_thread_that_saves_late(judge: Judge, name: str) -> None:
    """What it saves of step 6 appears after that of step 8; a restart after step 6 does not find the later one."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update, name=name)
        writers: list[threading.Thread] = []
        for step in range(saver.load() + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % EVERY == 0:
                state = copy.deepcopy({part: value.state_dict() for part, value in saver.parts.items()})
                path = job.path / name.format(step=step)
                late = 0.3 if step == 6 and "{" in name else 0.0
                writers.append(threading.Thread(target=write, args=({**state, "step": step}, path, late)))
                writers[-1].start()
                if "{" not in name:
                    writers[-1].join()
        for writer in writers:
            writer.join()

    verdict = verdict_of(judge, train)
    assert "held" == verdict.status, verdict
    assert verdict.sentence.startswith("a restart goes on from step 6, the newest")


def write(state: object, path: Path, late: float) -> None:
    """Save after some time."""
    time.sleep(late)
    torch.save(state, path)


def test_a_path_that_is_not_there(judge: Judge) -> None:
    """A job that counts it as none starts from scratch without a word."""
    verdict = verdict_of(judge, loop(highest, checks=False), damaged=False)
    assert "violated" == verdict.status
    assert (
        "told to resume from step_6, which is not there, the job went on from scratch and said nothing"
        == verdict.sentence
    )


def test_a_finished_run_goes_on(judge: Judge) -> None:
    """Started again after its end it trains one step more."""
    verdict = verdict_of(judge, loop(highest, ends=False), damaged=False)
    assert "violated" == verdict.status
    assert (
        "started again after its end, beside step_8, the job went on training after step 8, the last"
        == verdict.sentence
    )


def test_a_job_that_does_not_search(judge: Judge) -> None:
    """It is not told of a restart, so nothing can be said; it is told what to do."""
    verdict = verdict_of(judge, loop(highest, asks=False))
    assert ("inconclusive", True) == (verdict.status, "does not search for a checkpoint" in verdict.sentence)
    assert "ckpt_job.restarting" in verdict.findings[0].fix


def test_nothing_to_find(judge: Judge) -> None:
    """Without a save that steps follow there is nothing to restart from."""

    def once(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        cross_entropy(model(plain.batch(1)[0]), plain.batch(1)[1]).backward()
        update.step()
        save(job.path / "step_1", 1, model, update, 1)

    assert "every checkpoint is of the last step" in verdict_of(judge, once).sentence


def test_a_trainer_of_transformers(judge: Judge) -> None:
    """It takes the highest number; without the optimizer's file it goes on and says nothing."""
    pytest.importorskip("transformers")
    from jobs import hf

    def job(job: Job) -> None:
        job.train(hf.trainer(job, max_steps=10, save_steps=4))

    verdict = verdict_of(judge, job)
    assert ("violated", True) == (verdict.status, "with checkpoint-8/optimizer.pt missing" in verdict.sentence), verdict
    assert "optimizer.pt and scheduler.pt only where both are there" in verdict.findings[0].cause
    missing = {label for label, _ in verdict.findings[0].rows}
    assert {"optimizer.pt missing", "scheduler.pt missing", "rng_state.pth missing"} <= missing
    assert "held" == verdict_of(judge, job, damaged=False).status


def test_a_trainer_that_takes_it_and_does_not_restore_it(judge: Judge) -> None:
    """Saved under a wrapper's names the weights are not found; the step is, and nothing is called lost."""
    pytest.importorskip("transformers")
    from jobs import hf

    def job(job: Job) -> None:
        trainer: Any = hf.trainer(job, max_steps=10, save_steps=4)
        save = trainer._save  # noqa: SLF001 - what repositories override

        def wrapped(output_dir: str | None = None, state_dict: Any = None) -> None:
            del state_dict
            save(output_dir, {f"policy.{name}": value for name, value in trainer.model.state_dict().items()})

        trainer._save = wrapped  # noqa: SLF001
        job.train(trainer)

    verdict = verdict_of(judge, job, damaged=False)
    assert "a restart took checkpoint-8 and went on with the weights of a new model" == verdict.sentence
    assert "ckpt_loadable say why" in verdict.findings[0].cause
    assert "under the names that the model has" in verdict.findings[0].fix


def test_a_trainer_of_transformers_that_must_fall_back(judge: Judge) -> None:
    """HF-18: a checkpoint that was cut short is chosen, and the restart fails though an older one is whole."""
    pytest.importorskip("transformers")
    from jobs import hf

    def job(job: Job) -> None:
        job.train(hf.trainer(job, max_steps=10, save_steps=4))

    verdict = verdict_of(judge, job, fall_back=True)
    refused = next(finding for finding in verdict.findings if finding.component == "runs")
    assert "though step 4 is there whole" in refused.title
    assert any("trainer_state.json" in label for label, _ in refused.rows)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("save_last", [True, False])
def test_a_trainer_of_lightning(judge: Judge, *, save_last: bool) -> None:
    """It looks for last.ckpt and for nothing else."""
    pytest.importorskip("lightning.pytorch")
    from jobs import pl

    package = "lightning.pytorch"
    given = {"every_n_epochs": 1, "save_top_k": -1, "save_last": save_last}

    def job(job: Job) -> None:
        pl.fit(package, job, pl.checkpoint(package, **given))

    verdict = verdict_of(judge, job, damaged=False)
    if save_last:
        assert "held" == verdict.status, verdict
    else:
        assert ("violated", True) == (verdict.status, "save_last=True" in verdict.findings[0].fix)


def test_arguments() -> None:
    """They are switches."""
    with pytest.raises(InvalidArgument, match="damaged must be True or False; got 1"):
        Latest(damaged=1)  # type: ignore[arg-type]
