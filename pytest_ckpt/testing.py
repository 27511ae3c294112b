"""Conformance checks for people who add contracts or frameworks: call them in a test of your own package."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.base import Contract, Evidence, NoAdvice
from pytest_ckpt.frameworks.protocol import Framework
from pytest_ckpt.records.experiment import BASELINE, Experiment
from pytest_ckpt.records.run import FrameworkFacts, Outcome, RunRecord
from pytest_ckpt.records.tree import Entry, Tree
from pytest_ckpt.records.verdict import Advice, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_contract", "check_framework"]

_METHODS: Final = (
    "attach",
    "warm_up",
    "drives",
    "train",
    "find",
    "expected_count",
    "promised_steps",
    "required_files",
    "advise",
    "advise_missing_final",
)


def check_contract(kind: type[Contract], **arguments: object) -> None:
    """Check that a class is fit for `pytest_ckpt_contracts`.

    Args:
        kind: the contract's class.
        arguments: of its marker, where it can't be created without.

    Raises:
        AssertionError: it is not; the message lists everything that is wrong.
    """
    name = getattr(kind, "__name__", repr(kind))
    _raise(f"{name} is not fit to be a contract", _all_of(_contract_problems(kind, arguments)))


def _contract_problems(kind: type[Contract], arguments: Mapping[str, object]) -> Iterator[str]:
    if not isinstance(kind, type):
        yield "give the class, not an instance of it"
        return
    if not dataclasses.is_dataclass(kind) or not kind.__dataclass_params__.frozen:
        yield "it must be a frozen dataclass, whose fields are the marker's arguments"
        return
    if not str(getattr(kind, "name", "")).isidentifier():
        yield f"`name` must be a class variable that can end a marker's name, not {getattr(kind, 'name', None)!r}"
    if not (inspect.getdoc(kind) or "").strip() or (inspect.getdoc(kind) or "").startswith(f"{kind.__name__}("):
        yield "its docstring is what `pytest --markers` shows; write one"
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        yield f"it can't be created ({error}): give check_contract the arguments of a marker"
        return
    contract = kind(**arguments)
    if not isinstance(contract, Contract):
        yield "it must have `default`, `plan` and `judge`"
        return
    if not isinstance(kind.default(), (kind, type(None))):
        yield f"`default` must return an instance or None, not {kind.default()!r}"
    yield from _judgement_problems(contract)


def _judgement_problems(contract: Contract) -> Iterator[str]:
    """Have it judge a job that did nothing: it has to answer, and to answer the same again."""
    evidence = Evidence(
        runs={BASELINE: RunRecord(experiment=BASELINE, outcome=Outcome(status="finished"))}, advisor=NoAdvice()
    )
    planned = list(contract.plan(evidence))
    if not all(isinstance(experiment, Experiment) for experiment in planned):
        yield f"`plan` must yield experiments, not {planned!r}"
    verdict = contract.judge(evidence)
    if not isinstance(verdict, Verdict):
        yield f"`judge` must return a Verdict, not {verdict!r}"
        return
    if verdict.contract != contract.name:
        yield f"the verdict must bear the contract's name {contract.name!r}, not {verdict.contract!r}"
    if verdict.status == "held":
        yield "a job that trained nothing must not come out as held: nothing was checked"
    if contract.judge(evidence) != verdict or list(contract.plan(evidence)) != planned:
        yield "`plan` and `judge` must be pure: asked twice, they answered differently"


def check_framework(framework: Framework) -> None:
    """Check that an adapter is fit for `pytest_ckpt_frameworks`.

    Raises:
        AssertionError: it is not; the message lists everything that is wrong.
    """
    name = type(framework).__name__ if not isinstance(framework, type) else framework.__name__
    _raise(f"{name} is not fit to be a framework", _all_of(_framework_problems(framework)))


def _framework_problems(framework: Framework) -> Iterator[str]:
    if isinstance(framework, type):
        yield "give an instance, not the class"
        return
    missing = [name for name in ("name", "module", *_METHODS) if not hasattr(framework, name)]
    if missing:
        yield f"it lacks {', '.join(missing)}"
        return
    if not isinstance(framework, Framework):
        yield "it must have the methods of pytest_ckpt.Framework"
    yield from _import_problems(framework)
    if framework.drives(object()):
        yield "`drives` must say no to an object that it knows nothing of"
    if framework.find(Tree(), ".") != ():
        yield "`find` must return an empty tuple for an empty directory"
    stranger = Tree(entries=(Entry(path="notes.txt", kind="file"), Entry(path="sub", kind="dir")))
    if framework.find(stranger, "."):
        yield "`find` must not take notes.txt or a directory `sub` for a checkpoint"
    facts = FrameworkFacts(name=framework.name)
    run = RunRecord(experiment=BASELINE, outcome=Outcome(status="finished"))
    if not isinstance(framework.advise_missing_final(facts, run), Advice):
        yield "`advise_missing_final` must return an Advice, an empty one where there is nothing to say"


def _import_problems(framework: Framework) -> Iterator[str]:
    """Import the adapter's module in a fresh interpreter: that must not import the framework."""
    home = type(framework).__module__
    code = f"import sys; sys.path[:] = {sys.path!r}; import {home}; print({framework.module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        why = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        yield f"its module {home} can't be imported by a fresh interpreter: {why}"
    elif done.stdout.split()[-1:] == ["True"]:
        yield f"importing {home} imports {framework.module}: import the framework inside functions"


def _all_of(problems: Iterator[str]) -> list[str]:
    """Return the problems; an exception is the last of them."""
    found: list[str] = []
    try:
        found.extend(problems)
    except Exception as error:  # noqa: BLE001 - whatever the code under test raises
        place = traceback.extract_tb(error.__traceback__)[-1]
        found.append(f"{place.name} raised {type(error).__name__}: {error} ({place.filename}:{place.lineno})")
    return found


def _raise(title: str, problems: list[str]) -> None:
    if problems:
        raise AssertionError("\n".join([f"{title}:", *(f"  * {problem}" for problem in problems)]))
