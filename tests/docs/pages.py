"""Pages of Markdown and the blocks of code in them.

How a block is run is said by its language, by its first line, and by an HTML comment right before it:

* A block whose first line is a comment with a file's name (`# test_job.py`) is written to that file.
* A `diff` block changes a file that was written before; its first line is `--- FILE`.
* In a `console` block the lines that begin with `$` are run, and what follows each of them is its output.
* `<!-- shown: PARTS -->` names the parts of pytest's output that the block shows (see `tests.docs.output`).
* `<!-- not run: REASON -->` leaves the next block alone.
* `<!-- files: FOLDER -->`, anywhere on a page, runs its blocks in a copy of a folder of this repository.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).resolve().parents[2]
_COMMENT: Final = re.compile(r"<!-- (shown|not run|files): (.*?) -->")
_FILE_NAME: Final = re.compile(r"^# ([\w./-]+\.(?:py|toml|ini|yml))$")
_RUN: Final = frozenset({"python", "toml", "ini", "yaml", "diff", "console"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: the first word after the fence.
        lines: the code.
        line: where the code begins in the page, counted from 1.
        notes: the comments right before it, by their first word.
    """

    language: str
    lines: tuple[str, ...]
    line: int
    notes: dict[str, str]

    @property
    def file(self) -> str | None:
        """The file to which the block is written, or which it changes."""
        if self.language == "diff":
            return self.lines[0].removeprefix("--- ")
        match = _FILE_NAME.match(self.lines[0]) if self.lines else None
        return match[1] if match else None

    @property
    def is_run(self) -> bool:
        """Whether it is meant to run."""
        return self.language in _RUN and "not run" not in self.notes


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of the documentation.

    Attributes:
        path: of the file.
        folder: of this repository in a copy of which the blocks run; None for an empty one.
    """

    path: Path
    blocks: tuple[Block, ...]
    folder: Path | None

    @property
    def name(self) -> str:
        """The path as people write it."""
        return self.path.relative_to(ROOT).as_posix()


def pages() -> list[Path]:
    """Return all pages that people read, in the order of their names."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if path.is_file() and "_build" not in path.parts)


def read(path: Path) -> Page:
    """Read a page."""
    text = path.read_text(encoding="utf-8")
    blocks: list[Block] = []
    notes: dict[str, str] = {}
    for token in MarkdownIt().parse(text):
        if token.type == "fence" and token.map is not None:
            language = (token.info.split() or [""])[0]
            lines = tuple(token.content.splitlines())
            blocks.append(Block(language=language, lines=lines, line=token.map[0] + 2, notes=notes))
        if token.type == "html_block":
            notes = dict(_COMMENT.findall(token.content))
        elif token.level == 0 or token.type == "fence":
            notes = {}
    folders = re.findall(r"<!-- files: (.*?) -->", text)
    return Page(path=path, blocks=tuple(blocks), folder=ROOT / folders[0] if folders else None)
