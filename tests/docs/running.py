"""Running the blocks of a page, in a folder of its own, as a reader would who follows it from top to bottom."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .output import comparable, portable, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .pages import Block, Page

#: What a block shows that does not say.
_DEFAULT = "other, progress, messages, message, contracts, end"
#: How the variables begin that a reader at a terminal has, too; tools print more where one tells of a CI server.
_OF_ANY_SHELL = (
    *("CUDA_", "HOME", "LANG", "LC_", "LD_", "OPENBLAS_", "PATH", "PYTHONPATH", "TMPDIR", "TOKENIZERS_", "TORCH_"),
    *("USER", "VIRTUAL_ENV", "XDG_"),
)


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


class Warm:
    """Runs pytest in forks of one Python that has imported the frameworks (see `tests/docs/warm.py`)."""

    def __init__(self) -> None:
        program = str(Path(__file__).with_name("warm.py"))
        self._process = subprocess.Popen(
            [sys.executable, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            text=True,
        )

    def run(self, program: str, arguments: list[str], folder: Path) -> str:
        """Run pytest, or the command of this package, in `folder/work` and return what it prints."""
        output = folder / "output"
        environment = _environment(PYTEST_DEBUG_TEMPROOT=str(folder))
        request = {
            "program": program,
            "arguments": arguments,
            "folder": str(folder / "work"),
            "environment": environment,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**request, "output": str(output)}) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            message = "the Python that runs the pages has died"
            raise RuntimeError(message)
        return output.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass(slots=True)
class Reader:
    """Follows a page.

    Attributes:
        page: to follow.
        folder: to work in.
        warm: runs the commands.
    """

    page: Page
    folder: Path
    warm: Warm

    def follow(self) -> Iterator[Example]:
        """Do what the page says, block by block; yield each block of commands."""
        work = self.folder / "work"
        if self.page.folder is None:
            work.mkdir()
        else:
            shutil.copytree(self.page.folder, work, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for block in self.page.blocks:
            if not block.is_run:
                continue
            if block.language == "console":
                yield Example(block=block, expected=block.lines, found=tuple(self._run(block)))
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

    def _run(self, block: Block) -> Iterator[str]:
        """Run the commands of a block; yield each with its output."""
        for line in block.lines:
            if line.startswith("$ "):
                text = self.warm.run(*self._program(line, block), self.folder)
                yield line
                yield from shown(portable(text).splitlines(), block.notes.get("shown", _DEFAULT))

    def _program(self, line: str, block: Block) -> tuple[str, list[str]]:
        """Return which program a line runs, and its arguments."""
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for start in (["pytest"], ["python", "-m", "pytest_ckpt"]):
            if words[: len(start)] == start:
                return start[-1], words[len(start) :]
        message = f"{self.page.name}:{block.line}: {words[0]} can't be run here; say why the block is not run"
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


def _environment(**more: str) -> dict[str, str]:
    """Return the environment of a reader at a terminal, whose shell says nothing about pytest, and who has no other plugins."""
    ours = {key: value for key, value in os.environ.items() if key.startswith(_OF_ANY_SHELL)}
    return {
        **ours,
        "COLUMNS": "80",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p ckpt -p xdist",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # a page changes a file within a second, which the cached bytecode would not notice
        "PYTHONUNBUFFERED": "1",  # what goes to stdout and stderr comes in its order
        **more,
    }
