"""Nested containers walked to their leaves, each under the path of keys that leads to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.file_content import ReadError, Scalar
from pytest_ckpt.checkpoints.formats.nodes import Global, Inert
from pytest_ckpt.checkpoints.formats.pickled_objects import Unread
from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: A pickle of a few lines can nest billions of nodes, or one in itself.
_MOST_NODES: Final = 5_000_000
_DEEPEST: Final = 250
_SCALARS: Final = (bool, int, float, str)
#: Mappings whose attributes (such as the `_metadata` of a `state_dict`) belong to the class, not to what is stored.
_MAPPING_TYPES: Final = frozenset(
    {"collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict"}
)


def _as_it_is(node: object) -> object:
    return node


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A part of a file that stands for itself.

    Attributes:
        root: the outermost node.
        key: the key under which it is found.
        meaning: what a node stands for, asked before it is taken for a container.
        globals: the classes and functions that its pickle names.
        protocol: of its pickle.
    """

    root: object
    key: str = ""
    meaning: Callable[[object], object] = _as_it_is
    globals: frozenset[Global] = frozenset()
    protocol: int = 0


@dataclass(slots=True, kw_only=True)
class Leaves:
    """What a file holds, by key path, in the order of the file."""

    tensors: list[tuple[str, RawTensor]] = field(default_factory=list)
    scalars: dict[str, Scalar] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    has_optimizer: bool = False


def leaves(path: Path, branches: Iterable[Branch]) -> Leaves:
    """Walk everything in the branches; cycles are cut, what is shared appears under each of its paths.

    Args:
        path: the file, for messages.

    Raises:
        ReadError: there are more nodes, or deeper ones, than any training job writes.
    """
    walk = _Walk(path)
    try:
        for branch in branches:
            walk.enter(branch)
    except RecursionError as error:
        raise ReadError(path, "values nested deeper than any training job writes") from error
    return walk.found


class _Walk:
    def __init__(self, path: Path) -> None:
        self.found = Leaves()
        self._path = path
        self._meaning: Callable[[object], object] = _as_it_is
        self._nodes = 0

    def enter(self, branch: Branch) -> None:
        self._meaning = branch.meaning
        self.visit(branch.key, branch.root, ())

    def visit(self, key: str, node: object, above: tuple[int, ...]) -> None:
        self._nodes += 1
        if self._nodes > _MOST_NODES or len(above) > _DEEPEST:
            raise ReadError(self._path, f"more than {_MOST_NODES} values, or nested deeper than {_DEEPEST} levels")
        node = self._meaning(node)
        if isinstance(node, RawTensor):
            self.found.tensors.append((key, node))
        elif isinstance(node, Unread):
            self.found.unreadable[key] = node.kind
        elif isinstance(node, _SCALARS):
            self.found.scalars[key] = node
        elif id(node) not in above:
            self._descend(key, node, (*above, id(node)))

    def _descend(self, key: str, node: object, above: tuple[int, ...]) -> None:
        if (only := _only_argument(node)) is not None:
            self.found.scalars[key] = only
            return
        names = set()
        for name, child in _children(node):
            names.add(name)
            self.visit(f"{key}.{name}" if key else name, child, above)
        if {"state", "param_groups"} <= names:
            self.found.has_optimizer = True


def _only_argument(node: object) -> Scalar | None:
    """Return the value of an object that is made of a single one, such as a member of an enumeration."""
    if not isinstance(node, Inert) or len(node.args) != 1 or node.state or node.items or node.appends:
        return None
    return node.args[0] if isinstance(node.args[0], _SCALARS) else None


def _children(node: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, Mapping):
        yield from ((_key_text(key), value) for key, value in node.items())
    elif isinstance(node, (list, tuple)):
        yield from ((str(index), value) for index, value in enumerate(node))
    elif isinstance(node, Inert):
        yield from ((_key_text(key), value) for key, value in node.items)
        if str(node.callee) not in _MAPPING_TYPES:
            yield from _parts(node)


def _parts(node: Inert) -> Iterator[tuple[str, object]]:
    yield from ((str(index), value) for index, value in enumerate(node.args))
    yield from ((str(index), value) for index, value in enumerate(node.appends))
    yield from ((_key_text(key), value) for key, value in node.kwargs.items())
    # With __slots__, the state is a pair: what lies in __dict__, and the slots.
    states = node.state if isinstance(node.state, tuple) else (node.state,)
    for state in states:
        if isinstance(state, dict):
            yield from _children(state)
        elif state is not None:
            yield "state", state


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, Inert):
        return ".".join(str(part) for part in key.args if isinstance(part, _SCALARS)) or str(key.callee)
    return str(key) if isinstance(key, (int, float, tuple, Global)) else type(key).__name__
