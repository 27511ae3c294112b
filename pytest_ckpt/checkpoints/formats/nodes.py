"""What stands for the objects of a pickle that are not made: names of classes, calls, references and bytes."""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function named by a pickle; only the name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def in_python_3(named: Global) -> str:
    """Return the name in Python 3 of what a pickle may name as Python 2 did; `torch.save` does."""
    module, name = NAME_MAPPING.get((named.module, named.name), (named.module, named.name))
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


@dataclass(slots=True, eq=False)
class Inert:
    """A call that a pickle asks for, with everything it would do to the result; none of it is done.

    Attributes:
        callee: what would be called: a `Global`, or an `Inert` node that stands for a callable.
        state: what would be handed to `__setstate__`.
        items: keys and values that would be set on the result.
        appends: values that would be appended to it.
    """

    callee: object
    args: tuple[object, ...]
    kwargs: Mapping[object, object] = field(default_factory=dict)
    state: object = None
    items: list[tuple[object, object]] = field(default_factory=list)
    appends: list[object] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Persistent:
    """A reference to something outside the pickle, such as a storage."""

    id: object


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """Bytes in a pickle: a part of its buffer, not a copy."""

    view: memoryview


class UnexpectedNode(TypeError):
    """A value in a pickle is of another kind than its place requires."""

    def __init__(self, node: object, expected: str) -> None:
        super().__init__(node, expected)
        self.node: Final = node
        self.expected: Final = expected

    def __str__(self) -> str:
        found = self.node if isinstance(self.node, str) else type(self.node).__name__
        return f"{found} in the place of {self.expected}"
