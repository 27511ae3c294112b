"""How a save gives a checkpoint its name is told from one run's operations: rightly or not, and without a restart."""

from __future__ import annotations

import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from contracts.test_crash_safe import (
    delete_first,
    delete_last,
    durable,
    grown,
    in_parts,
    in_place,
    last,
    loop,
    newest,
    numbered,
    pointed_to,
    pointed_to_first,
    pointer,
    renamed,
    sync,
    synced_too_early,
    told,
)
from jobs import hf
from pytest_ckpt.contracts.crashing import CrashSafe, PowerSafe
from pytest_ckpt.crashes.stopping import why_not

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.runs.job import Job

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be traced here")

State = dict[str, Any]

#: A file system in memory, which is another one than that of the job.
ELSEWHERE = Path("/dev/shm")  # noqa: S108 - nothing predictable is made there


def rows(judge: Judge, save: Callable[[State, Path], None], contract: Contract) -> list[str]:
    """Return what is told of a loop that saves as given and never searches."""

    def unasked(job: Job) -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(1, 7):
            model(torch.full((4, 8), step / 10)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 2 == 0:
                save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, Path(job.dir))

    verdict = judge(unasked, contract)[contract.name]
    assert "inconclusive" == verdict.status, told(verdict)
    assert "does not search for a checkpoint" in verdict.sentence
    return [open_numbers(f"{label}: {text}") for label, text in verdict.findings[0].rows]


def open_numbers(text: str) -> str:
    """Return a text without the numbers of operations: each release writes in as many as it likes."""
    return re.sub(r"\b\d+\b", "N", text)


def moved_in(state: State, folder: Path, elsewhere: Path | None = None) -> None:
    """Write to a directory for temporary files, and move from there."""
    with tempfile.TemporaryDirectory(dir=elsewhere) as outside:
        torch.save(state, Path(outside, "new"))
        shutil.move(Path(outside, "new"), folder / f"step{state['step']}.pt")


def moved_as_a_whole(state: State, folder: Path) -> None:
    """Fill a folder under another name, and rename it."""
    new = folder / "new.tmp"
    in_parts(state, folder)
    (folder / f"step{state['step']}").replace(new)
    new.replace(folder / f"step{state['step']}")


def linked(state: State, folder: Path, write: Callable[[State, Path], None] = grown) -> None:
    """Replace a symbolic link in two steps when the checkpoint is there."""
    write(state, folder)
    (folder / "latest").unlink(missing_ok=True)
    (folder / "latest").symlink_to(f"step{state['step']}.pt")


def linked_at_once(state: State, folder: Path) -> None:
    """Replace a symbolic link by a rename, to an absolute path."""
    grown(state, folder)
    (folder / "latest.tmp").symlink_to(folder / f"step{state['step']}.pt")
    (folder / "latest.tmp").replace(folder / "latest")


def named_in_place(state: State, folder: Path, write: Callable[[State, Path], None] = grown) -> None:
    """Write the path of the checkpoint over that of the one before."""
    write(state, folder)
    (folder / "latest").write_text(f"{folder}/step{state['step']}.pt\n", encoding="ascii")


def named_over(state: State, folder: Path) -> None:
    """Write the name over that of the one before, which is as long, and never empty it."""
    grown(state, folder)
    with (folder / "latest").open("r+" if (folder / "latest").exists() else "w", encoding="ascii") as file:
        file.write(f"step{state['step']}.pt")


def given_its_name(state: State, folder: Path) -> None:
    """Give the checkpoint its name when it is whole."""
    renamed(state, folder)
    (folder / "last.pt").replace(folder / f"step{state['step']}.pt")


def linked_around(state: State, folder: Path) -> None:
    """Remove the link before the checkpoint is written, and make it after."""
    (folder / "latest").unlink(missing_ok=True)
    linked(state, folder)


def named(folder: Path) -> State | None:
    """Load what `latest` names, or leads to; from the second checkpoint on it has to be there."""
    latest = folder / "latest"
    if latest.is_symlink() or (not latest.exists() and len(numbered(folder)) > 1):
        return dict(torch.load(latest))
    return torch.load(latest.read_text(encoding="ascii").strip()) if latest.exists() else None


def counted(state: State, folder: Path, name: str = "latest_step.txt") -> None:
    """Write the number of the checkpoint when that is there, as programs do whose folders are called by it."""
    grown(state, folder)
    (folder / "part").write_text(str(state["step"]), encoding="ascii")
    (folder / "part").replace(folder / name)


def counted_first(state: State, folder: Path) -> None:
    """Write the number before the checkpoint."""
    (folder / "latest_step.txt").write_text(f"{state['step']}\n", encoding="ascii")
    grown(state, folder)


def test_a_file_that_is_written_under_its_name(judge: Judge) -> None:
    """Whoever reads it meanwhile finds a part of it."""
    told_of = rows(judge, grown, CrashSafe())
    assert ["published: step4.pt is written in place, by operations N to N: a reader may see any part of it"] == told_of


def test_a_file_that_is_renamed(judge: Judge) -> None:
    """It is there as a whole or not at all."""
    assert ["published: last.pt gets its name at once, from new.tmp (operation N)"] == rows(judge, renamed, CrashSafe())


def test_a_file_that_is_moved_in(judge: Judge) -> None:
    """On one file system that is a rename, and told, as it may not be one in production."""
    (told_of,) = rows(judge, moved_in, CrashSafe())
    assert told_of.startswith("published: step4.pt is moved in from ")
    assert told_of.endswith("(operation N): at once on one file system, byte by byte between two")


@pytest.mark.skipif(not ELSEWHERE.is_dir(), reason="there is no other file system at hand")
def test_a_file_that_is_copied_in(judge: Judge, tmp_path: Path) -> None:
    """From another file system, a move writes in place."""
    if ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("they are one file system here")
    (told_of,) = rows(judge, lambda state, folder: moved_in(state, folder, ELSEWHERE), CrashSafe())
    assert "published: step4.pt is copied to its name, by operations" in told_of


def test_a_folder_that_is_filled_under_its_name(judge: Judge) -> None:
    """Its last file is named, as a search may go by that."""
    assert ["published: step4 is filled in place, by operations N to N; optimizer.pt comes last"] == rows(
        judge, in_parts, CrashSafe()
    )


def test_a_folder_that_is_renamed(judge: Judge) -> None:
    """All its files get their names at once."""
    (told_of,) = rows(judge, moved_as_a_whole, CrashSafe())
    assert told_of.startswith("published: step4 gets its name at once, from new.tmp")


@pytest.mark.parametrize(
    ("save", "says"),
    [
        pytest.param(pointed_to, "pointer: latest names step4.pt (operation N) after that is whole", id="last"),
        pytest.param(
            pointed_to_first,
            "pointer: latest names step4.pt (operation N) before that is whole (operation N)",
            id="first",
        ),
        pytest.param(
            named_in_place,
            "pointer: latest names step4.pt (operation N) after that is whole; it is not replaced at once: a reader may find "
            "it empty, or gone, from operation N on",
            id="in place",
        ),
        pytest.param(
            linked,
            "pointer: latest names step4.pt (operation N) after that is whole; it is not replaced at once: a reader may find "
            "it empty, or gone, from operation N on",
            id="link in two steps",
        ),
        pytest.param(named_over, "pointer: latest names step4.pt (operation N) after that is whole", id="written over"),
        pytest.param(counted, "pointer: latest_step.txt names step4.pt (operation N) after that is whole", id="number"),
        pytest.param(
            counted_first,
            "pointer: latest_step.txt names step4.pt (operation N) before that is whole (operation N); it is not replaced at "
            "once: a reader may find it empty, or gone, from operation N on",
            id="number first",
        ),
        pytest.param(
            linked_at_once, "pointer: latest names step4.pt (operation N) after that is whole", id="link at once"
        ),
    ],
)
def test_what_names_the_newest(judge: Judge, save: Callable[[State, Path], None], says: str) -> None:
    """A pointer may come too early, and be gone for a moment; it is told when it names what, and how."""
    assert says == rows(judge, save, CrashSafe())[1]


def test_a_number_that_means_no_checkpoint(judge: Judge) -> None:
    """A file of another name may count anything."""
    told_of = rows(judge, lambda state, folder: counted(state, folder, "progress.txt"), CrashSafe())
    assert not [row for row in told_of if row.startswith("pointer")]


def numbered_durably(state: State, folder: Path) -> None:
    """Name the new checkpoint when it is on the disk."""
    torch.save(state, folder / "new.tmp")
    sync(folder / "new.tmp")
    (folder / "new.tmp").replace(folder / f"step{state['step']}.pt")
    sync(folder)


def numbered_late(state: State, folder: Path) -> None:
    """Sync what has its name already."""
    torch.save(state, folder / "new.tmp")
    (folder / "new.tmp").replace(folder / f"step{state['step']}.pt")
    sync(folder / f"step{state['step']}.pt")


def numbered_too_early(state: State, folder: Path) -> None:
    """Sync before the bytes are written, and keep the checkpoint before."""
    synced_too_early(state, folder)
    (folder / "last.pt").replace(folder / f"step{state['step']}.pt")


@pytest.mark.parametrize(
    ("save", "says"),
    [
        pytest.param(numbered_durably, ["step4.pt before it gets its name, and the directory after"], id="right"),
        pytest.param(
            grown, ["step4.pt never", "the directory not after operation N, which changes the names in it"], id="never"
        ),
        pytest.param(
            numbered_late,
            [
                "step4.pt only after it has its name (operations N and N)",
                "the directory not after operation N, which changes the names in it",
            ],
            id="late",
        ),
        pytest.param(
            numbered_too_early,
            [
                "step4.pt before all its bytes are written (operations N and N): they are in a buffer of the program",
                "the directory not after operation N, which changes the names in it",
            ],
            id="too early",
        ),
        pytest.param(
            in_parts,
            [
                "N of N files of step4, step4/optimizer.pt, step4/weights.pt, never",
                "the directory not after operation N, which changes the names in it",
            ],
            id="parts",
        ),
    ],
)
def test_what_is_made_durable(judge: Judge, save: Callable[[State, Path], None], says: list[str]) -> None:
    """Each file is synced after its last byte and before it has its name, the directory after that; or it is told."""
    found = rows(judge, save, PowerSafe())
    assert [f"synced: {text}" for text in says] == [row for row in found if row.startswith("synced")]
    assert not any(row.startswith("synced") for row in rows(judge, save, CrashSafe()))


@pytest.mark.parametrize(
    ("save", "says"),
    [
        pytest.param(in_place, "operation N (open last.pt, emptied) takes step N, and last.pt is whole", id="over"),
        pytest.param(delete_first, "(unlink step", id="deleted"),
    ],
)
def test_a_moment_without_any_checkpoint_needs_no_restart(
    judge: Judge, save: Callable[[State, Path], None], says: str
) -> None:
    """Whatever a search does, it has nothing to find: that is broken though the job never searches."""
    verdict = judge(loop(save, lambda _: None), CrashSafe())["crash_safe"]
    assert "violated" == verdict.status
    assert "there is no whole checkpoint any more" in verdict.sentence
    assert says in open_numbers(verdict.findings[0].cause)
    assert ("state", "newest whole", "killed in or after") == verdict.findings[0].rows[0]


def test_names_lost_with_the_power_need_no_restart(judge: Judge) -> None:
    """The same holds after a power failure, and not where all is synced."""
    assert "violated" == judge(loop(renamed, lambda _: None), PowerSafe())["power_safe"].status
    assert "inconclusive" == judge(loop(durable, lambda _: None), PowerSafe())["power_safe"].status


@pytest.mark.parametrize(
    ("save", "load", "says"),
    [
        pytest.param(
            grown, newest, "step4.pt has its name from operation N on, and is whole after operation N.", id="in place"
        ),
        pytest.param(
            pointed_to_first,
            pointer,
            "latest names step4.pt by operation N, too early: that is whole after operation N.",
            id="pointer first",
        ),
    ],
)
def test_a_cause_names_operations(
    judge: Judge, save: Callable[[State, Path], None], load: Callable[[Path], State | None], says: str
) -> None:
    """What a restart fails on is told with the operations between which it is not whole."""
    assert says in open_numbers(judge(loop(save, load), CrashSafe())["crash_safe"].findings[0].cause)


@pytest.mark.parametrize(
    ("save", "gone"), [pytest.param(named_in_place, "emptied", id="line"), pytest.param(linked, "removed", id="link")]
)
def test_a_pointer_that_is_not_replaced_at_once_is_a_cause(judge: Judge, save: Callable[..., None], gone: str) -> None:
    """It is empty, or gone, while all that it may name is whole."""
    finding = judge(loop(partial(save, write=given_its_name), named), CrashSafe())["crash_safe"].findings[0]
    assert (
        f"latest is not replaced at once: it is {gone} by operation N, and names step4.pt only by operation N."
        == open_numbers(finding.cause)
    )
    assert "write the pointer to a temporary name beside it, and replace it by one rename." == finding.fix


def test_a_pointer_is_no_cause_where_what_is_unfinished_may_be(judge: Judge) -> None:
    """A search by the number fails on that, and asks for no link."""
    finding = judge(loop(linked_around, newest), CrashSafe())["crash_safe"].findings[0]
    assert "step4.pt has its name from operation N on" in open_numbers(finding.cause)


def test_a_move_from_elsewhere_is_noted(judge: Judge) -> None:
    """A job that no kill breaks here may be broken where the temporary directory is on another file system."""
    verdict = judge(loop(moved_in, newest), CrashSafe())["crash_safe"]
    assert "held" == verdict.status, told(verdict)
    (note,) = verdict.notes
    assert note.startswith("step2.pt is moved in from ")
    assert "outside of the job's directory (operation 1), as 2 more are; here both are on one file system" in note


@pytest.mark.parametrize(("save", "load"), [(renamed, last), (delete_last, newest), (pointed_to, pointer)])
def test_nothing_else_is_noted(
    judge: Judge, save: Callable[[State, Path], None], load: Callable[[Path], State | None]
) -> None:
    """A job whose search makes up for how it saves is told nothing."""
    assert () == judge(loop(save, load), CrashSafe())["crash_safe"].notes


def test_a_trainer_of_transformers_that_does_not_search(judge: Judge) -> None:
    """It fills a folder, and its trainer_state.json comes last."""
    pytest.importorskip("transformers")
    verdict = judge(lambda job: hf.trainer(job, max_steps=6, save_steps=2).train(), CrashSafe())["crash_safe"]
    assert "inconclusive" == verdict.status
    ((label, text),) = verdict.findings[0].rows
    assert "published" == label
    assert text.startswith("checkpoint-4 is filled in place, by operations ")
    assert text.endswith("; trainer_state.json comes last")
