"""How far a run has come is read from its journal while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.records.rehearsal import Rehearsal
from pytest_ckpt.records.run import FrameworkFacts
from pytest_ckpt.runs.journal import Journal
from pytest_ckpt.runs.progress import Follower, Going

if TYPE_CHECKING:
    from pathlib import Path


def test_a_journal_is_followed(tmp_path: Path) -> None:
    """The steps so far, how many are planned, and whether it is a rehearsal."""
    follower = Follower(tmp_path / "journal.jsonl")
    assert Going() == follower.look()
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("look", {"step": 99, "note": '{"event":"step_end"'})
    assert Going() == follower.look()
    journal.write("rehearsal", Rehearsal())
    journal.write("framework", FrameworkFacts(name="transformers", version="5", planned_steps=700))
    journal.write("step_end", {"step": 1, "claimed": 1})
    journal.write("step_end", {"step": 2, "claimed": 2})
    assert Going(2, 700, rehearsed=True) == follower.look() == follower.look()
    journal.write("step_end", {"step": 3, "claimed": 3})
    assert Going(3, 700, rehearsed=True) == follower.look()


def test_a_line_that_is_being_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    """The look may come in the midst of it."""
    path = tmp_path / "journal.jsonl"
    follower = Follower(path)
    path.write_text('{"event":"step_end","data":{"step":4,"claimed":4}}\n{"event":"step_end","da')
    assert 4 == follower.look().steps
    with path.open("a") as file:
        file.write('ta":{"step":5,"claimed":5}}\n')
    assert 5 == follower.look().steps


def test_a_length_that_is_not_known(tmp_path: Path) -> None:
    """Lightning may not say how many steps there are."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("framework", FrameworkFacts(name="lightning", version="2"))
    journal.write("step_end", {"step": 1, "claimed": None})
    assert Going(1, None, rehearsed=False) == Follower(tmp_path / "journal.jsonl").look()
