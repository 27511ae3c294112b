"""From a marker `ckpt_sweep` to the combinations of settings with which a test's job is run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from typing import Any, Final

import pytest

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.experiments.combinations import Sweep
from pytest_ckpt.shell.names import PREFIX, SWEEP, sweep_mark

#: So many combinations are run where the marker does not say how many.
MOST: Final = 50
_NAME: Final = PREFIX + SWEEP
#: Characters of a value that are shown.
_SHOWN: Final = 30


class Swept:
    """What pytest has for an argument until the job is run with one of its values."""

    def __repr__(self) -> str:
        return f"<swept by {_NAME}>"


def take_arguments(metafunc: pytest.Metafunc) -> None:
    """Have pytest look for no fixtures behind the arguments that a sweep gives; what is wrong is told of by `sweep_of`."""
    mark = sweep_mark(metafunc.definition)
    given = [name for name in mark.kwargs if name != "most"] if mark is not None else []
    names = [name for name in given if not _has_default(metafunc.function, name)]
    takes = inspect.signature(metafunc.function).parameters
    if names and all(name in takes and not _taken(metafunc.definition, name) for name in names):
        metafunc.parametrize(names, [[Swept() for _ in names]], ids=[pytest.HIDDEN_PARAM])


def sweep_of(item: pytest.Function) -> Sweep:
    """Return the combinations with which an item's job is to be run.

    Raises:
        InvalidArgument: the marker can't be followed.
    """
    mark = sweep_mark(item)
    keywords: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
    most = keywords.pop("most", MOST)
    if mark is None or mark.args or not keywords:
        message = (
            f"{_NAME} takes the values by the names of the test's arguments, such as {_NAME}(save_steps=[2, 3, 5])"
        )
        raise InvalidArgument(message)
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        message = f"{_NAME}(most={most!r}): give the number of combinations that may be run, 1 or more"
        raise InvalidArgument(message)
    for name in keywords:
        _check_argument(item, name)
    return Sweep(values={name: _values(name, values) for name, values in keywords.items()}, most=most)


def text(combination: Mapping[str, object]) -> str:
    """Return a combination in one line, such as `save_steps=3, epochs=1`."""
    return ", ".join(f"{name}={_short(value)}" for name, value in combination.items())


def _short(value: object) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 4]} ..."


# -- what may be wrong with it -----------------------------------------------------------------------------------------


def _check_argument(item: pytest.Function, name: str) -> None:
    if isinstance(item.callspec.params.get(name), Swept) or _has_default(item.obj, name):
        return
    takes = inspect.signature(item.obj).parameters
    if name not in takes:
        message = f"{_NAME}({name}=...): the test takes no argument {name}; it takes {', '.join(takes)}"
        raise InvalidArgument(message)
    if taken := _taken(item, name):
        message = f"{_NAME}({name}=...): {name} {taken}"
        raise InvalidArgument(message)
    message = f"{_NAME} of a set of parameters can't be followed; put it on the function, its class or its module"
    raise InvalidArgument(message)


def _has_default(function: Callable[..., object], name: str) -> bool:
    """Say whether a function has a value for an argument, for which pytest then looks for nothing."""
    parameter = inspect.signature(function).parameters.get(name)
    return parameter is not None and parameter.default is not inspect.Parameter.empty


def _taken(item: pytest.Function, name: str) -> str:
    """Return what else decides on an argument, or depends on it; empty if nothing does."""
    fixtures: Mapping[str, Sequence[pytest.FixtureDef[object]]] = item._fixtureinfo.name2fixturedefs  # noqa: SLF001 - there is no public way
    callspec = getattr(item, "callspec", None)
    if callspec is not None and name in callspec.params:
        return "is parametrized already; leave it to one of the two"
    if name in fixtures:
        return (
            "is a fixture, or parametrized already; a sweep gives its values itself, so give the argument another name"
        )
    for fixture, definitions in fixtures.items():
        if name in definitions[-1].argnames:
            return (
                f"is taken by the fixture {fixture}, which is set up once for all combinations; "
                "use it in the test, or let the fixture return a function that takes it"
            )
    return ""


def _values(name: str, values: Any) -> Sequence[object]:  # noqa: ANN401 - whatever a user writes
    ordered = isinstance(values, Sized) and isinstance(values, Iterable)
    if not ordered or isinstance(values, (str, bytes, Mapping, AbstractSet)):
        message = (
            f"{_NAME}({name}={values!r}): give the values as a list or a range, the smallest first; "
            f"got {type(values).__name__}"
        )
        raise InvalidArgument(message)
    # 1, 1.0 and True are three values: frameworks take them for different things
    found = (
        values if isinstance(values, range) else tuple({(type(value), repr(value)): value for value in values}.values())
    )
    if not found:
        message = f"{_NAME}({name}={values!r}): there is no value to run the job with"
        raise InvalidArgument(message)
    return found
