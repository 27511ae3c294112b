"""From collected tests to contract items: each is tied to its contract, and markers that can't work are told of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

import pytest

from pytest_ckpt.errors import ContractViolation, InvalidArgument
from pytest_ckpt.settings import settings_key
from pytest_ckpt.shell.known import asked_key, is_contract_item, registry_of, sweep_key, test_key
from pytest_ckpt.shell.names import DEFAULT_SET, PREFIX, SWEEP, contract_marks, parameter_marks, sweep_mark

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from pytest_ckpt.records.verdict import Verdict

#: The parameter by which a test's items are told apart; no fixture of a user has this name.
PARAMETER: Final = "_ckpt_contract"


def contract_names(metafunc: pytest.Metafunc) -> list[str]:
    """Return the names of a test's contracts; wrong markers are told of when all tests are collected."""
    marks = contract_marks(metafunc.definition)
    try:
        return list(registry_of(metafunc.config).asked(marks)) if marks else []
    except InvalidArgument:
        return ["invalid"]


def tie(config: pytest.Config, item: pytest.Item) -> str | None:
    """Note which contract an item stands for; return what is wrong with its markers."""
    marks = contract_marks(item)
    if not marks:
        return _sweeps_nothing(item) if sweep_mark(item) is not None else None
    callspec = getattr(item, "callspec", None)
    name = str(callspec.params.get(PARAMETER, "")) if callspec is not None else ""
    test = _without_contract(item.nodeid, name)
    try:
        asked = registry_of(config).asked(marks)
        by_test = registry_of(config).asked(marks[len(parameter_marks(item)) :])
        if problem := _without_item(asked, by_test) or _unfit(item, name):
            return f"{test}: {problem}"
        _note_sweep(item)
    except InvalidArgument as error:
        return f"{test}: {error}"
    item.stash[asked_key] = asked[name]
    item.stash[test_key] = test
    if not config.stash[settings_key].enabled:
        reason = "checkpoint contracts are switched on by --ckpt-contract (or ini ckpt_contract = true)"
        item.add_marker(pytest.mark.skip(reason=reason))
    elif asked[name].xfail:
        broken = pytest.RaisesExc(ContractViolation, check=_is_broken)
        item.add_marker(pytest.mark.xfail(reason=asked[name].xfail, raises=broken))
    return None


def _is_broken(error: BaseException) -> bool:
    """Say whether a contract is broken, and not merely undecided: only that can be expected."""
    verdict: Verdict | None = getattr(error, "verdict", None)
    return verdict is not None and verdict.status == "violated"


def _without_item(asked: Iterable[str], by_test: Container[str]) -> str | None:
    """Return that a set of parameters asks for a contract that the test has no item for."""
    for name in asked:
        if name not in by_test:
            return f"{PREFIX}{name} of a set of parameters needs the same mark on the test, whose arguments it then replaces"
    return None


def _unfit(item: pytest.Item, name: str) -> str | None:
    """Return why the contracts of a marked item can't be checked."""
    mark = contract_marks(item)[0].name
    if not isinstance(item, pytest.Function) or not name:
        return f"{mark} works on test functions and methods of plain classes, not on {type(item).__name__}"
    if inspect.iscoroutinefunction(item.obj) or inspect.isasyncgenfunction(item.obj):
        return f"{mark} can't run an async test as a training job; make it a plain function"
    if "ckpt_job" not in item.fixturenames:
        return (
            f"{mark} needs the fixture ckpt_job as an argument of the test: it says where to write and to resume from"
        )
    return None


def _note_sweep(item: pytest.Item) -> None:
    """Note with which settings an item's job is to be run.

    Raises:
        InvalidArgument: the marker can't be followed.
    """
    if sweep_mark(item) is not None and isinstance(item, pytest.Function):
        from pytest_ckpt.shell.sweeps import sweep_of  # most sessions have none

        item.stash[sweep_key] = sweep_of(item)


def _sweeps_nothing(item: pytest.Item) -> str:
    return (
        f"{item.nodeid}: {PREFIX}{SWEEP} varies the job of a contract, and this test asks for none; put a contract beside it, "
        "such as @pytest.mark.ckpt_final_step"
    )


def late(item: pytest.Item) -> str:
    """Say that a marker was added when the items of its test were made already; empty if none was."""
    sweep = sweep_mark(item)
    marks = [] if is_contract_item(item) else contract_marks(item)
    marks += [sweep] if sweep is not None and sweep_key not in item.stash else []
    if not marks:
        return ""
    mark = marks[0].name
    return f"{item.nodeid}: {mark} was added when tests had been collected; put it on the function, its class or its module"


def _without_contract(nodeid: str, name: str) -> str:
    """Return the node id of a test from that of the item for one of its contracts."""
    for suffix in (f"-{name}]", f"[{name}]"):
        if nodeid.endswith(suffix):
            return nodeid.removesuffix(suffix) + ("]" if suffix.startswith("-") else "")
    return nodeid


def report_problems(config: pytest.Config, items: list[pytest.Item], problems: Sequence[str]) -> None:
    """End the session with what is wrong, each problem once."""
    if problems and hasattr(config, "workerinput"):  # pytest-xdist takes an exception here for a bug of its own
        items.clear()
        config.workeroutput["ckpt_problems"] = list(dict.fromkeys(problems))  # type: ignore[attr-defined]
    elif problems:
        raise pytest.UsageError("\n".join(dict.fromkeys(problems)))


def keep_own_marks(items: Sequence[pytest.Item]) -> None:
    """Leave each item the mark of its own contract, so that -m and -k choose contracts one by one."""
    own = {item: _own_marks(item) for item in items}
    for node in {node for item in items for node in item.listchain()}:
        node.own_markers[:] = [
            mark for mark in node.own_markers if not mark.name.startswith(PREFIX) or mark.name == PREFIX + SWEEP
        ]
    for item, marks in own.items():
        item.own_markers.extend(marks)


def _own_marks(item: pytest.Item) -> list[pytest.Mark]:
    asked = item.stash[asked_key]
    name = f"{PREFIX}{asked.contract.name}"
    marks = [mark for mark in contract_marks(item) if mark.name in {name, f"{PREFIX}{DEFAULT_SET}"}]
    if asked.marked:
        return [mark for mark in marks if mark.name == name][:1]
    return [*marks[:1], getattr(pytest.mark, name).mark]
