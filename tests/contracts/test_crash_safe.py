"""A kill, or a power failure, at any moment costs a job nothing that it had saved; or it is told at which moments it does."""

from __future__ import annotations

import io
import json
import mmap
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from jobs import hf
from pytest_ckpt.contracts.crashing import CrashSafe, PowerSafe
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import TRACED

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt.records.verdict import Verdict
    from pytest_ckpt.runs.job import Job

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be traced here")

State = dict[str, Any]


def loop(
    save: Callable[[State, Path], None], load: Callable[[Path], State | None], *, steps: int = 6
) -> Callable[[Job], None]:
    """Return a job that saves every second step and searches for what it finds, as given."""

    def train(job: Job) -> None:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        done = 0
        if job.restarting and (found := load(Path(job.dir))) is not None:
            model.load_state_dict(found["model"])
            optimizer.load_state_dict(found["optimizer"])
            done = found["step"]
        for step in range(done + 1, steps + 1):
            batch = torch.randn(4, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(batch).pow(2).mean().backward()
            optimizer.step()
            if step % 2 == 0:
                save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, Path(job.dir))

    return train


def sync(path: Path) -> None:
    """Make a file or directory durable."""
    opened = os.open(path, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


def numbered(folder: Path) -> list[Path]:
    """Return the checkpoints in a directory, the oldest first."""
    return sorted(folder.glob("step*.pt"), key=lambda path: int(path.stem.removeprefix("step")))


def newest(folder: Path) -> State | None:
    """Load the newest checkpoint by its number."""
    found = numbered(folder)
    return torch.load(found[-1]) if found else None


def last(folder: Path) -> State | None:
    """Load the one checkpoint that there is."""
    return torch.load(folder / "last.pt") if (folder / "last.pt").exists() else None


def in_place(state: State, folder: Path) -> None:
    """Write the new checkpoint over the old one."""
    torch.save(state, folder / "last.pt")


def renamed(state: State, folder: Path) -> None:
    """Replace the old checkpoint when the new one is written."""
    torch.save(state, folder / "new.tmp")
    (folder / "new.tmp").replace(folder / "last.pt")


def durable(state: State, folder: Path) -> None:
    """Replace the old checkpoint when the new one is on the disk."""
    torch.save(state, folder / "new.tmp")
    sync(folder / "new.tmp")
    (folder / "new.tmp").replace(folder / "last.pt")
    sync(folder)


def synced_too_early(state: State, folder: Path) -> None:
    """Sync while the bytes are in a buffer of the program, as a writer may that syncs before it closes."""
    content = io.BytesIO()
    torch.save(state, content)
    with (folder / "new.tmp").open("wb", buffering=1 << 20) as file:
        file.write(content.getvalue())
        os.fsync(file.fileno())
    (folder / "new.tmp").replace(folder / "last.pt")
    sync(folder)


def synced_too_late(state: State, folder: Path) -> None:
    """Sync what has its name already, and was another file before."""
    renamed(state, folder)
    sync(folder / "last.pt")
    sync(folder)


def folder_synced_too_early(state: State, folder: Path) -> None:
    """Give a folder its name of which a file was written to once more after it was synced."""
    here = folder / "new.tmp"
    here.mkdir()
    torch.save(state, here / "state.pt")
    sync(here / "state.pt")
    with (here / "state.pt").open("ab") as file:
        file.write(b"the end")
    here.rename(folder / f"step{state['step']}")
    sync(folder)


def last_folder(folder: Path) -> State | None:
    """Load what is in the newest folder, which has to have its end."""
    found = max(folder.glob("step*"), default=None)
    if found is not None and not (found / "state.pt").read_bytes().endswith(b"the end"):
        raise EOFError(found)
    return None if found is None else torch.load(found / "state.pt")


def delete_first(state: State, folder: Path) -> None:
    """Make room for the new checkpoint before it is there."""
    for path in numbered(folder):
        path.unlink()
    torch.save(state, folder / "new.tmp")
    (folder / "new.tmp").replace(folder / f"step{state['step']}.pt")


def delete_first_durably(state: State, folder: Path) -> None:
    """Make room, and do two things that change nothing before the new checkpoint is there."""
    for path in numbered(folder):
        path.unlink()
    sync(folder)
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / f"step{state['step']}.pt")


def delete_last(state: State, folder: Path) -> None:
    """Keep the old checkpoint until the new one is there."""
    torch.save(state, folder / "new.tmp")
    (folder / "new.tmp").replace(folder / f"step{state['step']}.pt")
    for path in numbered(folder)[:-1]:
        path.unlink()


def delete_durably(state: State, folder: Path) -> None:
    """Keep the old checkpoint until the new one is on the disk."""
    torch.save(state, folder / "new.tmp")
    sync(folder / "new.tmp")
    (folder / "new.tmp").replace(folder / f"step{state['step']}.pt")
    sync(folder)
    for path in numbered(folder)[:-1]:
        path.unlink()


def grown(state: State, folder: Path) -> None:
    """Write under the final name, beside the older ones."""
    torch.save(state, folder / f"step{state['step']}.pt")


def readable(folder: Path) -> State | None:
    """Load the newest checkpoint that can be read."""
    found = [state for path in numbered(folder) if (state := readable_or_new(path)) is not None]
    return found[-1] if found else None


def readable_or_new(path: Path) -> State | None:
    """Load a checkpoint, or the newest in a folder, and nothing where that can't be read."""
    with suppress(Exception):  # whatever a cut file comes to
        return torch.load(path) if path.is_file() else newest(path)
    return None


def pointed_to(state: State, folder: Path) -> None:
    """Name the newest checkpoint when it is there."""
    grown(state, folder)
    (folder / "latest.tmp").write_text(f"step{state['step']}.pt", encoding="ascii")
    (folder / "latest.tmp").replace(folder / "latest")


def pointed_to_first(state: State, folder: Path) -> None:
    """Name the newest checkpoint before it is there."""
    (folder / "latest.tmp").write_text(f"step{state['step']}.pt", encoding="ascii")
    (folder / "latest.tmp").replace(folder / "latest")
    grown(state, folder)


def pointer(folder: Path) -> State | None:
    """Load what is named as the newest."""
    latest = folder / "latest"
    return torch.load(folder / latest.read_text(encoding="ascii")) if latest.exists() else None


def in_parts(state: State, folder: Path) -> None:
    """Write the weights and the rest to files of their own, in a folder per step."""
    here = folder / f"step{state['step']}"
    here.mkdir()
    torch.save({"model": state["model"], "step": state["step"]}, here / "weights.pt")
    torch.save(state["optimizer"], here / "optimizer.pt")


def parts(folder: Path) -> State | None:
    """Load the parts of the newest step, and do without the optimizer's where that is not there."""
    folders = sorted(path for path in folder.glob("step*") if (path / "weights.pt").exists())
    if not folders:
        return None
    found: State = torch.load(folders[-1] / "weights.pt")
    path = folders[-1] / "optimizer.pt"
    fresh = torch.optim.SGD([torch.zeros(1) for _ in found["model"]], lr=0.1, momentum=0.9).state_dict()
    return {**found, "optimizer": torch.load(path) if path.exists() else fresh}


def all_parts(folder: Path) -> State | None:
    """Load the parts of the newest step that has all of them."""
    whole = [state for path in sorted(folder.glob("step*")) if (state := both_parts(path)) is not None]
    return whole[-1] if whole else None


def both_parts(path: Path) -> State | None:
    """Load the parts of a step, and nothing where one is missing or can't be read."""
    with suppress(Exception):
        return {**torch.load(path / "weights.pt"), "optimizer": torch.load(path / "optimizer.pt")}
    return None


def told(verdict: Verdict) -> str:
    """Return all that a verdict says."""
    rows = [" ".join(row) for finding in verdict.findings for row in finding.rows]
    return "\n".join([*(f"{finding.title} {finding.cause} {finding.fix}" for finding in verdict.findings), *rows])


BREAKS_WHEN_KILLED = [
    pytest.param(
        in_place, last, ("no whole checkpoint any more", "open last.pt, emptied", "written over"), id="in place"
    ),
    pytest.param(
        delete_first, newest, ("no whole checkpoint any more", "unlink step", "deleted before"), id="deleted first"
    ),
    pytest.param(delete_first_durably, newest, ("unlink step", "deleted before"), id="deleted first, durably"),
    pytest.param(grown, newest, ("a restart fails though step2.pt is whole", "EOFError"), id="a cut file is taken"),
    pytest.param(grown, readable_or_new, ("begins from scratch though step2.pt is whole",), id="from scratch"),
    pytest.param(pointed_to_first, pointer, ("a restart fails", "rename latest.tmp to latest"), id="pointer first"),
    pytest.param(in_parts, parts, ("wrong state and says nothing: optimizer", "step4"), id="a part is missing"),
]


@pytest.mark.parametrize(("save", "load", "says"), BREAKS_WHEN_KILLED)
def test_a_loop_that_a_kill_breaks(
    judge: Judge, save: Callable[[State, Path], None], load: Callable[[Path], State | None], says: tuple[str, ...]
) -> None:
    """What is lost, and at which moments, is told."""
    verdict = judge(loop(save, load), CrashSafe())["crash_safe"]
    assert "violated" == verdict.status, verdict.sentence
    for part in says:
        assert part in told(verdict), told(verdict)


def in_one_write(state: State, folder: Path) -> None:
    """Write under the final name by one long write, which a kill cuts."""
    content = io.BytesIO()
    torch.save({**state, "rest": torch.zeros(5000)}, content)
    (folder / f"step{state['step']}.pt").write_bytes(content.getvalue())


HOLDS_WHEN_KILLED = [
    pytest.param(in_one_write, readable, id="one long write"),
    pytest.param(renamed, last, id="renamed"),
    pytest.param(delete_last, newest, id="deleted last"),
    pytest.param(grown, readable, id="a cut file is passed over"),
    pytest.param(pointed_to, pointer, id="pointer last"),
    pytest.param(in_parts, all_parts, id="all parts"),
    pytest.param(durable, last, id="durable"),
]


@pytest.mark.parametrize(("save", "load"), HOLDS_WHEN_KILLED)
def test_a_loop_that_no_kill_breaks(
    judge: Judge, save: Callable[[State, Path], None], load: Callable[[Path], State | None]
) -> None:
    """Its twin loses nothing; and many states were tried."""
    verdict = judge(loop(save, load), CrashSafe())["crash_safe"]
    assert "held" == verdict.status, told(verdict)
    trace = judge.lab.runs[TRACED].trace
    assert trace is not None
    assert 8 <= len(trace.states)


def swapped(state: State, folder: Path) -> None:
    """Move the old folder away, the new one to its place, and then delete the old one."""
    new, now, old = folder / "last.new", folder / "last", folder / "last.old"
    if not now.exists() and old.exists():
        old.rename(now)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    torch.save(state, new / "state.pt")
    if now.exists():
        now.rename(old)
    new.rename(now)
    shutil.rmtree(old, ignore_errors=True)


def either(folder: Path) -> State | None:
    """Load from the folder, or from the one that was moved away."""
    found = [folder / name for name in ("last", "last.old") if (folder / name).exists()]
    return torch.load(found[0] / "state.pt") if found else None


def only_one(folder: Path) -> State | None:
    """Load from the folder, and know nothing of the one that was moved away."""
    return torch.load(folder / "last" / "state.pt") if (folder / "last").exists() else None


@pytest.mark.parametrize("most", [8, 100])
def test_what_only_the_job_knows_to_be_whole(judge: Judge, most: int) -> None:
    """A state in which nothing seems to be whole is no loss where the job goes on from it, however many states are tried."""
    assert "held" == judge(loop(swapped, either), CrashSafe(most=most))["crash_safe"].status
    broken = judge(loop(swapped, only_one), CrashSafe(most=most))["crash_safe"]
    assert "no whole checkpoint" in broken.sentence


BREAKS_WITHOUT_POWER = [
    pytest.param(
        renamed, last, ("no whole checkpoint", "rename new.tmp to last.pt, without", "no file is synced"), id="renamed"
    ),
    pytest.param(
        synced_too_early, last, ("last.pt was synced before all its bytes had been written",), id="synced too early"
    ),
    pytest.param(
        synced_too_late,
        last,
        ("last.pt, written by operation", "is not synced before it gets its name"),
        id="synced late",
    ),
    pytest.param(
        folder_synced_too_early,
        last_folder,
        ("state.pt was synced before all its bytes had been written",),
        id="folder synced too early",
    ),
    pytest.param(delete_last, newest, ("a restart fails", "no whole checkpoint"), id="deleted last"),
    pytest.param(pointed_to, pointer, ("a restart fails though step2.pt is whole",), id="pointer"),
]


def in_a_new_folder(state: State, folder: Path, *, syncs: bool = False) -> None:
    """Write to a folder of its own, give that its name, and delete the older one."""
    new = folder / "new"
    new.mkdir()
    torch.save(state, new / "state.pt")
    sync(new / "state.pt")
    if syncs:
        sync(new)
    new.rename(folder / f"step{state['step']}")
    sync(folder)
    for old in folder.glob("step*"):
        if old.name != f"step{state['step']}":
            shutil.rmtree(old)


def newest_folder(folder: Path) -> State | None:
    """Load from the newest folder that has a state, after making room for what is to be saved."""
    shutil.rmtree(folder / "new", ignore_errors=True)
    found = sorted(folder.glob("step*/state.pt"))
    return torch.load(found[-1]) if found else None


def test_the_names_in_a_new_folder(judge: Judge) -> None:
    """They are lost with a power failure until the folder itself is synced, be it synced where its own name is."""
    broken = judge(loop(in_a_new_folder, newest_folder), PowerSafe())["power_safe"]
    assert "no whole checkpoint" in broken.sentence
    assert "without the changed names in step" in told(broken)
    synced = partial(in_a_new_folder, syncs=True)
    assert "held" == judge(loop(synced, newest_folder), PowerSafe())["power_safe"].status


@pytest.mark.parametrize(("save", "load", "says"), BREAKS_WITHOUT_POWER)
def test_a_loop_that_a_power_failure_breaks(
    judge: Judge, save: Callable[[State, Path], None], load: Callable[[Path], State | None], says: tuple[str, ...]
) -> None:
    """What no kill breaks may be lost all the same."""
    verdict = judge(loop(save, load), PowerSafe())["power_safe"]
    assert "violated" == verdict.status, verdict.sentence
    for part in says:
        assert part in told(verdict), told(verdict)


@pytest.mark.parametrize(
    ("save", "load"),
    [
        pytest.param(durable, last, id="durable"),
        pytest.param(delete_durably, newest, id="deleted durably"),
        pytest.param(grown, readable, id="a cut file is passed over"),
    ],
)
def test_a_loop_that_no_power_failure_breaks(
    judge: Judge, save: Callable[[State, Path], None], load: Callable[[Path], State | None]
) -> None:
    """Its twin syncs what it names, or does not believe in names."""
    assert "held" == judge(loop(save, load), PowerSafe())["power_safe"].status


def test_a_trainer_of_transformers(judge: Judge) -> None:
    """A kill before trainer_state.json is complete makes the restart fail, until somebody deletes the directory."""
    pytest.importorskip("transformers")

    def train(job: Job) -> None:
        job.train(hf.trainer(job, max_steps=6, save_steps=2, save_total_limit=2))

    verdict = judge(train, CrashSafe())["crash_safe"]
    assert "violated" == verdict.status
    assert "a restart fails though checkpoint-2 is whole" in verdict.sentence
    assert "checkpoint-4/trainer_state.json" in told(verdict)
    assert "trainer_state.json is written last: let a search of yours pass over" in verdict.findings[0].fix
    heading, *rows = [row for row in verdict.findings[0].rows if len(row) > 2]
    assert ("state", "newest whole", "killed in or after", "a restart") == heading
    assert {"step 2 to 4"} == {row[1] for row in rows}  # what is alike in both saves is one row
    assert "refused: JSONDecodeError" in {row[3] for row in rows}
    trace = judge.lab.runs[TRACED].trace
    assert trace is not None
    assert 70 <= len([state for state in trace.states if not state.lost])


def test_a_trainer_whose_search_passes_over_what_is_unfinished(judge: Judge) -> None:
    """The file that is written last says whether a checkpoint is whole."""
    pytest.importorskip("transformers")

    def train(job: Job) -> None:
        trainer = hf.trainer(job, max_steps=6, save_steps=2, save_total_limit=2)
        whole = [path for path in Path(job.dir).glob("checkpoint-*") if is_whole(path / "trainer_state.json")]
        newest_whole = max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)
        trainer.train(resume_from_checkpoint=str(newest_whole) if job.restarting and newest_whole else None)

    def is_whole(path: Path) -> bool:
        try:
            return bool(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return False

    verdict = judge(train, CrashSafe())["crash_safe"]
    assert "held" == verdict.status, told(verdict)


def test_refusing_can_be_allowed(judge: Judge) -> None:
    """Where a person is to look after each crash, an error that says so is enough."""
    assert "held" == judge(loop(grown, newest), CrashSafe(fall_back=False))["crash_safe"].status
    assert "violated" == judge(loop(in_place, last), CrashSafe(fall_back=False))["crash_safe"].status


def test_states_that_are_alike_share_a_row(judge: Judge) -> None:
    """Those that follow each other, in each save; a row counts what it does not name, the last one what is in no row."""
    finding = judge(loop(grown, newest, steps=16), CrashSafe())["crash_safe"].findings[0]
    table = [row for row in finding.rows if len(row) > 2]
    ((numbers, whole, done, outcome),) = table[1:]
    assert "3, 5 and 5 more" == numbers
    assert ("step 2 to 14", "open step4.pt, emptied", "refused: EOFError") == (whole, done, outcome)
    assert not any(label.startswith("and ") for label, *_ in finding.rows)


def test_more_sorts_of_states_than_rows(judge: Judge) -> None:
    """The largest have a row, and the others are counted."""

    def save(state: State, folder: Path) -> None:
        here = folder / f"step{state['step']}"
        here.mkdir()
        for name in "abcdefgh":
            (here / name).write_bytes(b"1")
        torch.save(state, here / "state.pt")

    def load(folder: Path) -> State | None:
        here = max(folder.glob("step*"), default=None)
        if here is None or (here / "state.pt").exists():
            return None if here is None else dict(torch.load(here / "state.pt"))
        raise (KeyError if len(list(here.iterdir())) % 2 else ValueError)(here.name)

    finding = judge(loop(save, load), CrashSafe())["crash_safe"].findings[0]
    (rest,) = [row for row in finding.rows if row[0].startswith("and ")]
    assert 7 == len([row for row in finding.rows if len(row) > 2])
    named = sum(map(numbers_in, (row[0] for row in finding.rows[1:7])))
    assert len(finding.states) == named + int(rest[0].split()[1])


def numbers_in(cell: str) -> int:
    """Return how many states a row is about."""
    named, _, more = cell.removesuffix(" more").partition(" and ")
    ranges = [[int(number) for number in part.split("-")] for part in named.split(", ")]
    return sum(one[-1] - one[0] + 1 for one in ranges) + int(more or 0)


def test_a_few_of_many_states(judge: Judge) -> None:
    """Each kind of operation on each file is tried, and what was left out is told."""
    verdict = judge(loop(grown, newest), CrashSafe(most=4))["crash_safe"]
    assert "violated" == verdict.status
    assert "ckpt_crash_safe(most=" in verdict.notes[0]


def test_a_job_that_does_not_search(judge: Judge) -> None:
    """Whether a crash costs it anything can't be told."""
    verdict = judge(loop(renamed, lambda _: None), CrashSafe())["crash_safe"]
    assert "inconclusive" == verdict.status
    assert "does not restart from last.pt" in verdict.sentence


def test_a_job_that_restarts_wrongly_without_any_crash(judge: Judge) -> None:
    """The crash is not blamed for it."""

    def without_optimizer(folder: Path) -> State | None:
        found = last(folder)
        return None if found is None else {**found, "step": 0}

    verdict = judge(loop(renamed, without_optimizer), CrashSafe())["crash_safe"]
    assert "violated" != verdict.status


def test_a_job_that_writes_through_memory(judge: Judge) -> None:
    """What is not seen makes nothing sure."""

    def mapped(state: State, folder: Path) -> None:
        renamed(state, folder)
        with (folder / "log").open("w+b") as file:
            file.truncate(100)
            with mmap.mmap(file.fileno(), 0) as memory:
                memory[0:3] = b"abc"

    verdict = judge(loop(mapped, last), CrashSafe())["crash_safe"]
    assert "inconclusive" == verdict.status
    assert "log is written through memory" in verdict.sentence


def test_where_nothing_can_be_traced(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract says why it does not apply."""
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    verdict = judge(loop(renamed, last), CrashSafe())["crash_safe"]
    assert "not_applicable" == verdict.status
    assert "riscv64" in verdict.sentence


@pytest.mark.parametrize("given", [{"most": 0}, {"most": "all"}, {"most": True}, {"fall_back": 1}, {"states": -1}])
def test_arguments(given: dict[str, Any]) -> None:
    """Wrong ones are named."""
    with pytest.raises(InvalidArgument, match=next(iter(given))):
        CrashSafe(**given)


def test_one_state_alone(judge: Judge) -> None:
    """A failure names states; each of them can be tried again."""
    found = judge(loop(grown, newest), CrashSafe())["crash_safe"].findings[0].states
    again = judge(loop(grown, newest), CrashSafe(states=(found[1],)))["crash_safe"]
    assert "in 1 of 1 state that a kill can leave" in again.sentence
    assert (found[1],) == again.findings[0].states


def test_no_more_time(judge: Judge) -> None:
    """What is not tried within the budget is told, and nothing is claimed of it."""
    job = loop(grown, newest, steps=20)
    judge(job)
    judge.lab.settings = replace(judge.lab.settings, budget=0.0001)
    killed, without_power = judge.lab.judge([CrashSafe(), PowerSafe()])
    assert "--ckpt-budget" in killed.notes[0]
    assert "inconclusive" == without_power.status
    assert "was tried within --ckpt-budget" in without_power.sentence


def test_states_that_are_none_of_this_contract(judge: Judge) -> None:
    """A number that the run has not is a mistake; one of another kind of crash does not apply."""
    job = loop(renamed, last)
    mistyped = judge(job, CrashSafe(states=(999,)))["crash_safe"]
    assert "inconclusive" == mistyped.status
    assert "there is no crash state 999: this run has" in mistyped.sentence
    assert "not_applicable" == judge(job, PowerSafe(states=(1,)))["power_safe"].status
