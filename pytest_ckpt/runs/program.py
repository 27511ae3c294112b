"""A program of its own that a job starts: it is looked at in the process that trains, as the job itself would be."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_ckpt.errors import HarnessError, InvalidArgument
from pytest_ckpt.runs.imports import after_import
from pytest_ckpt.runs.program_failure import ProgramFailed, tell_errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.runs.child import RunPlan
    from pytest_ckpt.runs.observing import Observer

#: Tells the processes of a program where it is written what is to be looked at.
_VARIABLE: Final = "PYTEST_CKPT_PROGRAM"
_SITE: Final = Path(__file__).with_name("site")


def run(
    arguments: Sequence[str | os.PathLike[str] | float],
    *,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    watched: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end.

    Args:
        env: its environment; that of this process by default.
        watched: what its environment needs beside that to be looked at.

    Raises:
        InvalidArgument: that is no list of a program and what it is called with.
        ProgramFailed: it ended with another exit code than 0.
        FileNotFoundError: there is no such program.
    """
    words = _words(arguments)
    environment = dict(os.environ if env is None else env)
    for name, value in (watched or {}).items():
        old = environment.get(name)
        environment[name] = f"{value}{os.pathsep}{old}" if name == "PYTHONPATH" and old else value
    code = subprocess.run(words, env=environment, cwd=cwd, check=False).returncode
    if code:
        raise ProgramFailed(code, words)


def _words(arguments: object) -> list[str]:
    if isinstance(arguments, (str, bytes, os.PathLike)) or not isinstance(arguments, Iterable):
        message = (
            f"ckpt_job.command takes a list such as [sys.executable, 'train.py', '--steps', '6']; got {arguments!r}"
        )
        raise InvalidArgument(message)
    words = [os.fsdecode(one) if isinstance(one, (bytes, os.PathLike)) else str(one) for one in arguments]
    if not words:
        message = "ckpt_job.command got an empty list: there is no program to run"
        raise InvalidArgument(message)
    return words


def watching(plan: RunPlan) -> dict[str, str]:
    """Write down what is to be looked at in a program, and return what its environment needs for that.

    Raises:
        HarnessError: a framework that a plugin has added can't be sent to another process.
    """
    import cloudpickle  # type: ignore[import-untyped]

    from pytest_ckpt.runs.job import Job

    file = plan.folder / "program.pickle"
    try:
        content = cloudpickle.dumps((replace(plan, job=Job(plan.directory), body=_nothing, skips=()), os.getpid()))
    except Exception as error:  # whatever a __reduce__ raises
        message = f"what is to be looked at in a program can't be sent to it: {type(error).__name__}: {error}"
        raise HarnessError(message) from error
    file.write_bytes(content)
    return {_VARIABLE: str(file), "PYTHONPATH": str(_SITE)}


def _nothing() -> None:
    return None


def arrive(path: str) -> None:
    """Have this process looked at if it imports torch, and the frameworks that it imports; called as it starts."""
    plan, main = pickle.loads(Path(path).read_bytes())  # noqa: S301 - the job wrote it
    tell_errors(plan.folder)
    process = _Process(plan, main)
    after_import("torch", process.look)
    for framework in plan.frameworks:
        after_import(framework.module, partial(process.attach, framework))


class _Process:
    """A process of a program: a framework is imported by what may import torch in its midst."""

    def __init__(self, plan: RunPlan, main: int) -> None:
        self._plan = plan
        self._main = main
        self._observer: Observer | None = None

    def look(self, torch: ModuleType) -> None:
        """Put the probe in place."""
        del torch
        from pytest_ckpt.runs.child import look_at_program

        self._observer = look_at_program(self._plan, self._main)

    def attach(self, framework: Framework, module: ModuleType) -> None:
        """Let a framework tell; one that trains has imported torch by now."""
        if self._observer is not None:
            framework.attach(module, self._observer)
