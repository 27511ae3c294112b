"""Programs that are run under the tracer, and what they left."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_ckpt.checkpoints.store import EvidenceStore
from pytest_ckpt.crashes.log import Log
from pytest_ckpt.crashes.states import replayed, states
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.crashes.tracer import Tracing
from pytest_ckpt.runs.supervise import run_forked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_ckpt.records.crash import CrashState
    from pytest_ckpt.records.operation import Operation
    from pytest_ckpt.records.tree import Tree
    from pytest_ckpt.runs.processes import Ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the tracer needs Linux")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A program that was run under the tracer.

    Attributes:
        root: the directory that was watched.
        left: what really lies there now.
    """

    root: Path
    ended: Ended
    initial: Tree
    log: Log
    left: Tree
    store: EvidenceStore

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was seen."""
        return self.log.operations

    @property
    def lines(self) -> list[str]:
        """What was seen, a line each."""
        return [operation.text for operation in self.log.operations]

    @property
    def replayed(self) -> Tree:
        """What the log says that was left."""
        return replayed(self.log, self.initial, self._read)

    @property
    def states(self) -> list[CrashState]:
        """What crashes can leave."""
        return list(states(self.log, self.initial, self._read, self.store.keep))

    def _read(self, digest: str) -> bytes:
        return self.store.path_of(digest).read_bytes()


class Programs:
    """Runs programs, each in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()

    def run(
        self,
        program: Callable[[Path], object],
        answer: Callable[[int, Operation], int] | None = None,
        setup: Callable[[Path], object] | None = None,
        delay: float = 0.0,
    ) -> Traced:
        """Run a program on an empty directory, or on what `setup` has put there."""
        folder = self._folder / f"program{next(self._numbers)}"
        root = folder / "root"
        root.mkdir(parents=True)
        if setup is not None:
            setup(root)
        store = EvidenceStore(folder / "evidence")
        initial = store.capture(root)
        tracing = Tracing(root=root, folder=folder, answer=answer, delay=delay)
        ended = run_forked(
            lambda: int(bool(program(root)) and False),
            timeout=60,
            stdout=folder / "stdout",
            stderr=folder / "stderr",
            tracing=tracing,
        )
        assert "" == ended.untraced, ended
        log = Log.read(tracing.operations, tracing.bytes)
        return Traced(root=root, ended=ended, initial=initial, log=log, left=store.capture(root), store=store)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Run programs under the tracer."""
    if reason := why_not():
        pytest.skip(reason)
    return Programs(tmp_path)


def content(tree: Tree) -> list[tuple[str, str, str]]:
    """Return what a tree holds, without times and permissions."""
    return sorted((entry.path, entry.kind, entry.content) for entry in tree.entries)
