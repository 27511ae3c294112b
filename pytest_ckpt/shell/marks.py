"""From markers on a test to the contracts it asks for."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.shell.names import DEFAULT_SET, PREFIX, SWEEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.contracts.base import Contract

#: What the marker of sweeps means.
SWEEPS: Final = (
    "run the job with each combination of the values given for arguments of the test, from small to large, most of them "
    "at most; the contracts beside it tell of the smallest combination that breaks them."
)
#: Names of markers that no contract can have.
_TAKEN: Final = {DEFAULT_SET: "the default set", SWEEP: "the marker of sweeps"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A contract that a test asks for.

    Attributes:
        marked: whether a marker names it; otherwise it came with the default set.
        xfail: why it is expected to be broken; empty if it is not.
    """

    contract: Contract
    marked: bool = True
    xfail: str = ""


class Registry:
    """The kinds of contracts by name."""

    def __init__(self, kinds: Iterable[type[Contract]]) -> None:
        self.kinds: dict[str, type[Contract]] = {}
        for kind in kinds:
            if kind.name in {*self.kinds, DEFAULT_SET, SWEEP}:
                other = _home(self.kinds[kind.name]) if kind.name in self.kinds else _TAKEN[kind.name]
                message = f"two contracts are called {kind.name!r}: {_home(kind)} and {other}"
                raise pytest.UsageError(message)
            self.kinds[kind.name] = kind

    def lines(self) -> Iterable[str]:
        """Return a line per marker for the ini option `markers`: its signature and what it means."""
        default_set = ", ".join(name for name, kind in self.kinds.items() if kind.default() is not None)
        yield f"{PREFIX}{DEFAULT_SET}(xfail=None): check the default set of checkpoint contracts: {default_set}."
        yield f"{PREFIX}{SWEEP}(*, most=50, **values): {SWEEPS}"
        for kind in self.kinds.values():
            yield f"{PREFIX}{kind.name}{signature(kind)}: {' '.join((inspect.getdoc(kind) or '').split())}"

    def asked(self, marks: Sequence[pytest.Mark]) -> dict[str, Asked]:
        """Return the contracts of a test by name; the nearest marker of a name counts.

        Raises:
            InvalidArgument: a marker is unknown or has wrong arguments.
        """
        asked: dict[str, Asked] = {}
        for mark in marks:
            name = mark.name.removeprefix(PREFIX)
            if name == DEFAULT_SET:
                for default in self._default_set(mark):
                    asked.setdefault(default.contract.name, default)
            elif name not in asked or not asked[name].marked:
                asked[name] = self._one(mark, name)
        return {name: asked[name] for name in self.kinds if name in asked}

    def _default_set(self, mark: pytest.Mark) -> Iterable[Asked]:
        keywords = dict(mark.kwargs)
        xfail = _xfail(mark.name, keywords)
        if mark.args or keywords:
            raise InvalidArgument(_wrong(mark, "(xfail=None)", "it takes no other argument"))
        defaults = [kind.default() for kind in self.kinds.values()]
        return [Asked(contract=contract, marked=False, xfail=xfail) for contract in defaults if contract is not None]

    def _one(self, mark: pytest.Mark, name: str) -> Asked:
        kind = self.kinds.get(name)
        if kind is None:
            close = difflib.get_close_matches(name, [*self.kinds, DEFAULT_SET, SWEEP], n=1)
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else "."
            known = ", ".join(PREFIX + known for known in self.kinds)
            message = f"unknown contract marker {mark.name}{hint} Known: {known}"
            raise InvalidArgument(message)
        keywords = dict(mark.kwargs)
        xfail = _xfail(mark.name, keywords)
        unknown = [repr(keyword) for keyword in keywords if keyword not in inspect.signature(kind).parameters]
        if unknown:
            raise InvalidArgument(_wrong(mark, signature(kind), f"there is no argument {' nor '.join(unknown)}"))
        try:
            inspect.signature(kind).bind(*mark.args, **keywords)
            return Asked(contract=kind(*mark.args, **keywords), xfail=xfail)
        except (TypeError, InvalidArgument) as error:
            raise InvalidArgument(_wrong(mark, signature(kind), str(error))) from error


def _home(kind: type[Contract]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def signature(kind: type[Contract]) -> str:
    """Return the arguments of a contract's marker as text."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(kind).parameters.values()
    ]
    xfail = inspect.Parameter("xfail", inspect.Parameter.KEYWORD_ONLY, default=None)
    return str(inspect.Signature([*parameters, xfail]))


def _xfail(name: str, keywords: dict[str, Any]) -> str:
    """Take `xfail` out of a marker's keywords."""
    reason = keywords.pop("xfail", None)
    if reason is not None and (not isinstance(reason, str) or not reason):
        message = f"{name}(xfail={reason!r}): give the reason as text"
        raise InvalidArgument(message)
    return reason or ""


def _wrong(mark: pytest.Mark, right: str, why: str) -> str:
    given = ", ".join([*map(repr, mark.args), *(f"{key}={value!r}" for key, value in mark.kwargs.items())])
    return f"{mark.name}({given}): {why}. Right: {mark.name}{right}"


def fixtures_of(function: object, funcargs: Mapping[str, object]) -> dict[str, object]:
    """Return the fixture values that a test function takes, by parameter."""
    return {name: funcargs[name] for name in inspect.signature(function).parameters if name in funcargs}  # type: ignore[arg-type]
