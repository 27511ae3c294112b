"""The jobs that show the known bugs, taken from the tests of these bugs."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bugs import table
from bugs.known import BUGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bugs.known import Bug
    from pytest_ckpt import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A bug that the installed releases have, with the job that shows it.

    Attributes:
        bug: as it is declared.
        fact: what goes wrong, in a sentence.
        train: the job; None where a test compares two runs by hand.
        prepare: lays into a job's directory what lies there before it starts.
    """

    bug: Bug
    fact: str
    train: Callable[[Job], object] | None
    prepare: Callable[[Path], object]


class _Recorder:
    """Stands for the fixtures of a test, and notes what the test would have judged."""

    def __init__(self, directory: Path) -> None:
        self.next_directory = directory
        self.train: Callable[[Job], object] | None = None
        self.contract = ""

    def __call__(self, *arguments: Any) -> Any:
        self.train = next((argument for argument in arguments if callable(argument)), None)
        self.contract = getattr(arguments[-1], "name", "")
        raise _NotedError

    def not_with(self, *_: object) -> None:
        """Leave out what shows the absence of a bug."""
        raise _NotedError

    by_hand = not_with

    def setenv(self, *_: object) -> None:
        """Leave the environment alone."""

    delenv = setenv


class _NotedError(Exception):
    """Ends a test as soon as its job is known."""


def cases(scratch: Path) -> Iterator[Case]:
    """Yield each bug of the installed releases once, in the order of its declaration.

    Args:
        scratch: a directory that tests may write into.
    """
    tests = dict(_tests())
    for identity in dict.fromkeys(bug.id for bug in BUGS if bug.is_here and bug.id in tests):
        declared = next(bug for bug in BUGS if bug.id == identity and bug.is_here)
        noted = {test: _recorded(test, _made(scratch / test.__name__)) for test in tests[identity]}
        test = next((one for one in noted if noted[one].contract == declared.contract), tests[identity][0])
        fact = (inspect.getdoc(test) or "").splitlines()[0]
        train = None if declared.contract == "ckpt_run" else noted[test].train
        yield Case(bug=declared, fact=fact, train=train, prepare=partial(_recorded, test))


def _tests() -> Iterator[tuple[str, list[Any]]]:
    found: dict[str, list[Any]] = {}
    for name in dict.fromkeys(test.file.stem for test in table.shown()):
        for test, function in vars(importlib.import_module(f"bugs.{name}")).items():
            match = re.match(r"test_([a-z]+)_(\d+)_", test)
            if match and "shows" in inspect.signature(function).parameters:
                found.setdefault(f"{match[1].upper()}-{match[2]}", []).append(function)
    yield from found.items()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _recorded(test: Any, directory: Path) -> _Recorder:
    """Run a test up to the point where it would judge its job."""
    recorder = _Recorder(directory)
    with contextlib.suppress(_NotedError):
        test(**dict.fromkeys(inspect.signature(test).parameters, recorder))
    return recorder
