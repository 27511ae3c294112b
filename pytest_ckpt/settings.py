"""Flags and ini options, resolved once into a frozen record: flag, then ini, then default."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEVICES: Final = ("cpu", "cuda", "auto")
_START_METHODS: Final = ("auto", "fork", "spawn")
_DEFAULT_TIMEOUT: Final = 120.0
_DEFAULT_BUDGET: Final = 60.0


class Settings(NamedTuple):  # a dataclass takes a millisecond to make, in every pytest run
    """What the user asked for.

    Attributes:
        enabled: whether contracts are checked; otherwise marked tests are skipped.
        device: `cpu`, `cuda` or `auto`.
        timeout: seconds that one run of a job may take.
        report: file for the report, which is Markdown where its name ends in `.md` and JSON otherwise.
        start_method: how a job's process is started.
        processes: how many runs of a job may go on at a time.
        keep: whether evidence is kept when everything held.
        budget: seconds after which no more crash states of a job are tried.
        crash: number of the only crash state to try; None for all.
    """

    enabled: bool
    device: str
    timeout: float
    report: Path | None
    start_method: str
    processes: int
    keep: bool
    budget: float = _DEFAULT_BUDGET
    crash: int | None = None


settings_key = pytest.StashKey[Settings]()


def add_options(parser: pytest.Parser) -> None:
    """Declare the flags and their ini twins."""
    group = parser.getgroup("ckpt", "checkpoint contracts")
    _flag(parser, group, "contract", "Check the checkpoint contracts of marked tests; without it they are skipped.")
    _choice(parser, group, "device", _DEVICES, "cpu", "Device on which jobs train and tiny models lie")
    _time(parser, group, "timeout", _DEFAULT_TIMEOUT, "End one run of a job after so many seconds.")
    _time(parser, group, "budget", _DEFAULT_BUDGET, "Try no more crash states of a job after so many seconds.")
    group.addoption(
        "--ckpt-crash",
        dest="ckpt_crash",
        type=int,
        default=None,
        metavar="N",
        help="Of all crash states, start the job again in state N only, as the report of a kept state says.",
    )
    group.addoption(
        "--ckpt-report",
        dest="ckpt_report",
        default=None,
        metavar="FILE",
        help="Write all verdicts to a file: Markdown if its name ends in .md, else JSON. Ini: ckpt_report.",
    )
    parser.addini("ckpt_report", "File for all verdicts, Markdown (.md) or JSON.", type="string", default=None)
    _choice(parser, group, "start-method", _START_METHODS, "auto", "How a job's process is started")
    processes = "How many runs of a job go on at a time; auto: one for each core, shared with the workers of xdist"
    group.addoption(
        "--ckpt-processes",
        dest="ckpt_processes",
        default=None,
        metavar="N",
        help=f"{processes}. Default: auto. Ini: ckpt_processes.",
    )
    parser.addini("ckpt_processes", f"{processes}.", type="string", default="auto")
    _flag(
        parser, group, "keep", "Keep the evidence (copies of checkpoints, journals) of jobs whose contracts all held."
    )


def _flag(parser: pytest.Parser, group: pytest.OptionGroup, name: str, text: str) -> None:
    group.addoption(
        f"--ckpt-{name}", dest=f"ckpt_{name}", action="store_true", default=None, help=f"{text} Ini: ckpt_{name}."
    )
    parser.addini(f"ckpt_{name}", text, type="bool", default=False)


def _time(parser: pytest.Parser, group: pytest.OptionGroup, name: str, default: float, text: str) -> None:
    dest = f"ckpt_{name}"
    help_text = f"{text} Default: {default:.0f}. Ini: {dest}."
    group.addoption(f"--ckpt-{name}", dest=dest, type=float, default=None, metavar="SECONDS", help=help_text)
    parser.addini(dest, text, type="float", default=default)


def _choice(  # noqa: PLR0913, PLR0917 - the parts of an option
    parser: pytest.Parser, group: pytest.OptionGroup, name: str, choices: Sequence[str], default: str, text: str
) -> None:
    dest = f"ckpt_{name.replace('-', '_')}"
    help_text = f"{text}: {', '.join(choices)}. Default: {default}."
    group.addoption(f"--ckpt-{name}", dest=dest, choices=choices, default=None, help=f"{help_text} Ini: {dest}.")
    parser.addini(dest, help_text, type="string", default=default)


def resolve(config: pytest.Config) -> Settings:
    """Return the settings of a session.

    Raises:
        pytest.UsageError: an ini value makes no sense.
    """
    return Settings(
        enabled=_switched_on(config, "ckpt_contract"),
        device=_chosen(config, "ckpt_device", _DEVICES),
        timeout=_seconds(config, "timeout"),
        report=_report(config),
        start_method=_chosen(config, "ckpt_start_method", _START_METHODS),
        processes=_processes(config),
        keep=_switched_on(config, "ckpt_keep"),
        budget=_seconds(config, "budget"),
        crash=_crash(config),
    )


def _ini(config: pytest.Config, name: str) -> Any:  # noqa: ANN401 - of the type that was declared
    """Return the value of an ini option."""
    try:
        return config.getini(name)
    except (TypeError, ValueError, pytest.UsageError) as error:  # that do not always name the option
        raise pytest.UsageError(f"ini option {name}: {error}") from error  # noqa: EM102, TRY003


def _switched_on(config: pytest.Config, name: str) -> bool:
    return bool(config.getoption(name) or _ini(config, name))


def _chosen(config: pytest.Config, name: str, choices: Sequence[str]) -> str:
    value = config.getoption(name) or _ini(config, name)
    if value not in choices:
        message = f"ini option {name}: choose one of {', '.join(choices)}; got {value!r}"
        raise pytest.UsageError(message)
    return str(value)


def _seconds(config: pytest.Config, name: str) -> float:
    flag = config.getoption(f"ckpt_{name}")
    seconds = float(_ini(config, f"ckpt_{name}") if flag is None else flag)
    if not 0 < seconds < float("inf"):
        where = f"ini option ckpt_{name}" if flag is None else f"--ckpt-{name}"
        what = {"timeout": "one run of a job", "budget": "the restarts in crash states"}[name]
        message = f"{where}: give the seconds that {what} may take, a number above 0; got {seconds:g}"
        raise pytest.UsageError(message)
    return seconds


def _crash(config: pytest.Config) -> int | None:
    number: int | None = config.getoption("ckpt_crash")
    if number is not None and number < 0:
        message = f"--ckpt-crash: give the number of a crash state, as a failure names it, 0 or more; got {number}"
        raise pytest.UsageError(message)
    return number


def _processes(config: pytest.Config) -> int:
    flag = config.getoption("ckpt_processes")
    value = str(_ini(config, "ckpt_processes") if flag is None else flag)
    if value == "auto":
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
        return max(1, cores // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    if not value.isdecimal() or int(value) == 0:
        where = "ini option ckpt_processes" if flag is None else "--ckpt-processes"
        message = f"{where}: give auto or the number of runs that may go on at a time, at least 1; got {value!r}"
        raise pytest.UsageError(message)
    return int(value)


def _report(config: pytest.Config) -> Path | None:
    """Return the file for the report: a flag is relative to where pytest was started, ini to the root."""
    if flag := config.getoption("ckpt_report"):
        return Path(config.invocation_params.dir / flag)
    value = _ini(config, "ckpt_report")
    return Path(config.rootpath / value) if value else None
