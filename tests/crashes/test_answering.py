"""A disk that is full, or fails: which calls fail then, from which one on, and which do not."""

from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest

from pytest_ckpt.crashes.answering import Answer, noted_in
from pytest_ckpt.records.fault import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crashes.conftest import Programs
    from pytest_ckpt.records.fault import ErrorName


def errors_of(programs: Programs, tmp_path: Path, fault: Fault) -> tuple[dict[str, int], list[str]]:
    """Run a program of a few calls with a fault; return the errors that they met, and what was noted of them."""
    root, said, noted = tmp_path / "program0" / "root", tmp_path / "said.json", tmp_path / "refused.jsonl"

    def program(folder: Path) -> None:
        found: dict[str, int] = {}

        def tried(name: str, call: Callable[[], object]) -> None:
            try:
                call()
            except OSError as error:
                found[name] = error.errno or 0

        tried("one", lambda: (folder / "one").write_text("1", encoding="ascii"))
        tried("two", lambda: (folder / "two").write_text("2", encoding="ascii"))
        tried("folder", (folder / "folder").mkdir)
        tried("touch", (folder / "three").touch)
        tried("rename", lambda: (folder / "one").rename(folder / "four"))
        tried("unlink", (folder / "two").unlink)
        tried("empty", lambda: (folder / "one").open("wb").close())
        tried("overwrite", lambda: (folder / "four").open("wb").close())
        said.write_text(json.dumps(found), encoding="ascii")

    answer = Answer(fault, root, noted)
    programs.run(program, answer)
    return json.loads(said.read_text(encoding="ascii")), [operation.text for operation in noted_in(noted)]


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_takes_no_data_and_still_makes_names(programs: Programs, tmp_path: Path, error: ErrorName) -> None:
    """From the second write on; an empty file, a new name and a deletion need no room."""
    found, noted = errors_of(programs, tmp_path, Fault(error=error, operation=2, kind="write"))
    number = getattr(errno, error)
    assert {"two": number, "folder": number} == found
    assert ["write two, bytes 0 to 1", "mkdir folder"] == list(
        dict.fromkeys(noted)
    )  # a file is written again as it is closed


def test_a_disk_without_room_for_names_makes_none(programs: Programs, tmp_path: Path) -> None:
    """Whatever would have to be made."""
    found, _ = errors_of(programs, tmp_path, Fault(error="ENOSPC", operation=2, kind="open"))
    full = dict.fromkeys(("two", "folder", "touch", "rename"), errno.ENOSPC)
    assert {**full, "unlink": errno.ENOENT, "overwrite": errno.ENOSPC} == found


def test_a_bad_disk_fails_once(programs: Programs, tmp_path: Path) -> None:
    """The next call goes on."""
    found, noted = errors_of(programs, tmp_path, Fault(error="EIO", operation=0, kind="rename"))
    assert {"rename": errno.EIO} == found
    assert ["rename one to four"] == noted


def test_a_call_that_does_not_come_fails_nothing(programs: Programs, tmp_path: Path) -> None:
    """Nothing is noted then."""
    assert ({}, []) == errors_of(programs, tmp_path, Fault(error="EIO", operation=100, kind="write"))
