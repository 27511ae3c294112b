"""Running the blocks of a page, in a folder of its own, as a reader would who follows it from top to bottom."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .output import comparable, portable, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .pages import Block, Page

#: What a block shows that does not say.
_DEFAULT = "other, progress, messages, message, contracts, end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A block of commands with the output that the page shows and the one that was seen.

    Attributes:
        expected: the lines of the block.
        found: what they should be.
    """

    block: Block
    expected: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the page shows what happens."""
        return comparable(self.expected) == comparable(self.found)


@dataclass(slots=True)
class Reader:
    """Follows a page.

    Attributes:
        page: to follow.
        folder: to work in.
    """

    page: Page
    folder: Path
    _environment: dict[str, str] = field(default_factory=dict)

    def follow(self) -> Iterator[Example]:
        """Do what the page says, block by block; yield each block of commands."""
        work = self.folder / "work"
        if self.page.folder is None:
            work.mkdir()
        else:
            shutil.copytree(self.page.folder, work, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        self._environment = _environment(self.folder)
        for block in self.page.blocks:
            if not block.is_run:
                continue
            if block.language == "console":
                yield Example(block=block, expected=block.lines, found=tuple(self._run(block, work)))
            else:
                self._write(block, work)

    def _write(self, block: Block, work: Path) -> None:
        """Write a block to its file, or change the file."""
        if block.file is None:
            message = f"{self.page.name}:{block.line}: name a file in the first line, or say why the block is not run"
            raise ValueError(message)
        path = work / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "\n".join(block.lines) + "\n"
        path.write_text(_changed(path, block) if block.language == "diff" else text, encoding="utf-8")

    def _run(self, block: Block, work: Path) -> Iterator[str]:
        """Run the commands of a block; yield each with its output."""
        for line in block.lines:
            if not line.startswith("$ "):
                continue
            yield line
            done = subprocess.run(
                self._words(line.removeprefix("$ "), block),
                cwd=work,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            yield from shown(portable(done.stdout).splitlines(), block.notes.get("shown", _DEFAULT))

    def _words(self, command: str, block: Block) -> list[str]:
        program, *arguments = shlex.split(command, comments=True)
        if program == "pytest":
            return [sys.executable, "-m", "pytest", *arguments]
        if program == "python":
            return [sys.executable, *arguments]
        message = f"{self.page.name}:{block.line}: {program} can't be run here; say why the block is not run"
        raise ValueError(message)


def _changed(path: Path, block: Block) -> str:
    """Return a file with the change of a `diff` block made."""
    text = path.read_text(encoding="utf-8")
    changes = block.lines[1:]
    old = "".join(f"{line[1:]}\n" for line in changes if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in changes if not line.startswith("-"))
    if text.count(old) != 1:
        message = f"line {block.line}: these lines are {text.count(old)} times in {path.name}:\n{old}"
        raise ValueError(message)
    return text.replace(old, new)


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a reader whose shell says nothing about pytest."""
    ours = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "COV", "HF_"))}
    return {
        **ours,
        "COLUMNS": "80",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "-p no:randomly -p no:cacheprovider",
        "PYTEST_DEBUG_TEMPROOT": str(folder),
    }
