"""A call as it is sent to a fresh interpreter, and what can't be sent, by the names that its author knows."""

from __future__ import annotations

import inspect
import pickle
import sys
from dataclasses import fields, is_dataclass
from functools import partial
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

from pytest_ckpt.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType


def dump(function: Callable[..., int], args: tuple[object, ...]) -> bytes:
    """Return a call as a payload for a fresh interpreter, with what it needs to find the same modules.

    Raises:
        HarnessError: something in it can't be pickled; the message names it.
    """
    import cloudpickle  # type: ignore[import-untyped]

    known = cloudpickle.list_registry_pickle_by_value()
    lost = [module for name, module in list(sys.modules.items()) if name not in known and _is_only_here(name, module)]
    for module in lost:
        cloudpickle.register_pickle_by_value(module)
    try:
        call = cloudpickle.dumps((function, args))
    except Exception as error:  # whatever a __reduce__ of the user's raises
        raise HarnessError(_why_not(function, args, error)) from error
    finally:
        for module in lost:
            cloudpickle.unregister_pickle_by_value(module)
    return pickle.dumps({"path": sys.path, "argv": sys.argv, "call": call})


def _is_only_here(name: str, module: ModuleType) -> bool:
    """Say whether a fresh interpreter would not find a module: pytest imports tests from where no import looks."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.name != name or not type(spec.loader).__module__.startswith("_pytest."):
        return False
    folders: Sequence[str] | None = None
    found = None
    for depth, _ in enumerate(parts := name.split("."), start=1):
        found = PathFinder.find_spec(".".join(parts[:depth]), folders)
        folders = [] if found is None else found.submodule_search_locations or []
    return found is None or found.origin != spec.origin


def _why_not(function: Callable[..., int], args: tuple[object, ...], error: Exception) -> str:
    values = {f"argument {index}": value for index, value in enumerate(args)} | _parts(function)
    names = [name for part, value in values.items() for name in _culprits(part, value)]
    return (
        f"The job {getattr(function, '__qualname__', function)} can't be sent to a fresh process, because "
        f"{' and '.join(names) or 'something in it'} can't be pickled ({type(error).__name__}: {error}). "
        "Create it inside the job, or run the job in a forked process."
    )


def _culprits(name: str, value: object, depth: int = 5) -> Iterator[str]:
    """Yield the innermost values that can't be pickled, each by its name and type."""
    if _pickles(value):
        return
    inner = (
        [found for part, other in _parts(value).items() for found in _culprits(part, other, depth - 1)] if depth else []
    )
    yield from inner or [f"{name} (a {type(value).__qualname__})"]


def _parts(value: object) -> dict[str, object]:
    """Return what a value consists of, by names that whoever wrote the job knows."""
    if isinstance(value, partial):
        numbered = {f"its argument {index}": part for index, part in enumerate(value.args)}
        return numbered | {f"its argument {key!r}": part for key, part in value.keywords.items()} | _parts(value.func)
    if inspect.isfunction(value):
        used = inspect.getclosurevars(value)
        return {f"its variable {name!r}": part for name, part in {**used.globals, **used.nonlocals}.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f"its {field.name}": getattr(value, field.name) for field in fields(value)}
    return {}


def _pickles(value: object) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:  # noqa: BLE001 - as above
        return False
    return True
