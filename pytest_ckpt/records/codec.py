"""Records travel between processes as JSON; this module is the one place that knows how."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin

if typing.TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")


class Record:
    """Base of every record: a frozen dataclass that knows its own JSON form."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; fields that hold their default are left out."""
        return {
            field.name: encode(value)
            for field in dataclasses.fields(cast("Any", self))
            if (value := getattr(self, field.name)) != _default(field)
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the record from what `to_json` returned.

        Raises:
            TypeError: a field without default is missing, or a name is unknown.
        """
        hints = _hints(cast("Any", cls))
        unknown = sorted(set(data) - set(hints))
        if unknown:
            message = f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(hints)}"
            raise TypeError(message)
        return cls(**{name: decode(hints[name], value) for name, value in data.items()})


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@cache
def _hints(cls: Any) -> dict[str, Any]:  # noqa: ANN401 - any record class
    names = [field.name for field in dataclasses.fields(cls)]
    hints = typing.get_type_hints(cls)
    return {name: hints[name] for name in names}


def encode(value: object) -> Any:  # noqa: ANN401 - JSON data
    """Return `value` as JSON data: records, tuples, mappings and plain values."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, frozenset, set)):
        return [encode(item) for item in value]
    return value


def decode(hint: Any, data: Any) -> Any:  # noqa: ANN401 - JSON data
    """Return the value of type `hint` that `encode` turned into `data`."""
    if hasattr(hint, "from_json"):
        return hint.from_json(data)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(args, data)
    if origin is tuple:
        return tuple(decode(args[0], item) for item in data)
    if origin is frozenset:
        return frozenset(decode(args[0], item) for item in data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {_key(args[0], key): decode(args[1], item) for key, item in data.items()}
    return data


def _decode_union(args: tuple[Any, ...], data: Any) -> Any:  # noqa: ANN401 - JSON data
    if data is None:
        return None
    (hint,) = (arg for arg in args if arg is not types.NoneType) if len(args) == 2 else (None,)  # noqa: PLR2004
    return data if hint is None else decode(hint, data)


def _key(hint: type[T], key: str) -> T | str | int:
    return int(key) if hint is int else key
