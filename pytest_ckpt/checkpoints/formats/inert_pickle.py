"""A pickle read as data: what it asks to import or to call is written down and never done.

The standard library decodes the opcodes (`pickletools.genops`, which runs none of them) and a small stack machine puts
the values together. It knows lists, tuples, dicts and plain values; everything else becomes an `Inert` node. As no
callable ever reaches the stack, no pickle can make it call something.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pytest_ckpt.checkpoints.file_content import DamagedFile
from pytest_ckpt.checkpoints.formats.nodes import Blob, Global, Inert, Persistent, UnexpectedNode

if TYPE_CHECKING:
    from io import BytesIO
    from pathlib import Path

#: Opcodes with bytes in them, and how many bytes of the opcode come before those.
_BYTES: Final = {"SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}
_NO_EFFECT: Final = frozenset({"FRAME", "STOP"})
_PLAIN_KEYS: Final = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPickle:
    """What one pickle holds.

    Attributes:
        persistent: its outside references in the order in which they were met.
        globals: all classes and functions that it names.
        protocol: of pickle.
    """

    root: object
    persistent: tuple[Persistent, ...]
    globals: frozenset[Global] = frozenset()
    protocol: int = 0


def parse_pickle(path: Path, stream: BytesIO, buffer: memoryview, *, name: str) -> ParsedPickle:
    """Read one pickle from where the stream stands and leave the stream behind it.

    Args:
        path: the file, for messages.
        buffer: what the stream reads; bytes in the pickle become views of it.
        name: the part of the file that the pickle is, for messages.

    Raises:
        DamagedFile: the stream ends within the pickle, or it is none.
    """
    machine = _Machine(buffer)
    position: int | None = stream.tell()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an odd escape in text is the file's, not the caller's
            for opcode, argument, found_at in pickletools.genops(stream):
                position = found_at
                machine.run(opcode.name, argument, found_at or 0)
        return ParsedPickle(
            root=machine.stack.pop(),
            persistent=tuple(machine.persistent),
            globals=frozenset(machine.globals),
            protocol=machine.protocol,
        )
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        found = f"{error} after {position} of {len(buffer)} bytes"
        raise DamagedFile(path, name, "a complete pickle", found) from error


class _Machine:
    """The stack of an unpickler, with the effects of opcodes on it."""

    def __init__(self, buffer: memoryview) -> None:
        self.stack: list[Any] = []
        self.persistent: list[Persistent] = []
        self.globals: set[Global] = set()
        self.protocol = 0
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._buffer = buffer

    def run(self, opcode: str, argument: Any, position: int) -> None:  # noqa: ANN401 - whatever pickletools decodes
        if opcode in _EFFECTS:
            _EFFECTS[opcode](self, argument)
        elif opcode in _BYTES:
            start = position + _BYTES[opcode]
            self.stack.append(Blob(self._buffer[start : start + len(argument)]))
        elif opcode not in _NO_EFFECT:
            if argument is None:
                raise UnexpectedNode(opcode, "an opcode that files use")
            self.stack.append(argument)

    def push(self, value: object) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self._outer.pop()
        return values

    def mark(self) -> None:
        self._outer.append(self.stack)
        self.stack = []

    def take(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack):
            raise UnexpectedNode(self.stack, f"{count} values on the stack")
        values = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return values

    def memoize(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnexpectedNode((module, name), "the name of a global")
        self.stack.append(Global(module, name))
        self.globals.add(self.stack[-1])

    def set_protocol(self, protocol: int) -> None:
        self.protocol = protocol

    def refer(self, identity: object) -> None:
        self.persistent.append(Persistent(identity))
        self.stack.append(self.persistent[-1])

    def call(self, callee: object, args: object, kwargs: object = None) -> None:
        if not isinstance(args, tuple) or not isinstance(kwargs, (dict, type(None))):
            raise UnexpectedNode(args, "a tuple of arguments")
        self.stack.append(Inert(callee, args, kwargs or {}))

    def build(self, state: object) -> None:
        if isinstance(target := self.stack[-1], Inert):
            target.state = state

    def extend(self, values: Iterable[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (list, Inert)):
            raise UnexpectedNode(target, "a list to append to")
        (target if isinstance(target, list) else target.appends).extend(values)

    def set_items(self, flat: list[Any] | tuple[Any, ...]) -> None:
        pairs = [(_as_key(key), value) for key, value in zip(flat[::2], flat[1::2], strict=True)]
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update(pairs)
        else:
            raise UnexpectedNode(target, "a dict to set items of")

    def make_dict(self, flat: list[Any]) -> None:
        self.stack.append({})
        self.set_items(flat)


def _as_key(key: object) -> object:
    """Answer the key; for a tuple of objects a node, as to hash what a file nests at will can end the process."""
    if isinstance(key, tuple) and not all(isinstance(part, _PLAIN_KEYS) for part in key):
        return Inert(Global("builtins", "tuple"), key)
    return key


def _name(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.name(module, name)


def _instance(machine: _Machine, argument: str) -> None:
    args = tuple(machine.since_mark())
    _name(machine, argument)
    machine.call(machine.stack.pop(), args)


def _object(machine: _Machine, _: object) -> None:
    callee, *args = machine.since_mark()
    machine.call(callee, tuple(args))


_Effect: TypeAlias = Callable[[_Machine, Any], object]
#: What opcodes do that neither have no effect nor only push their argument. Sets become lists, frozen ones tuples.
_EFFECTS: Final[Mapping[str, _Effect]] = {
    "PROTO": _Machine.set_protocol,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.take(1) if machine.stack else machine.since_mark(),
    "POP_MARK": lambda machine, _: machine.since_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(value=True),
    "NEWFALSE": lambda machine, _: machine.push(value=False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "FROZENSET": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "DICT": lambda machine, _: machine.make_dict(machine.since_mark()),
    "TUPLE1": lambda machine, _: machine.push(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.take(3)),
    "APPEND": lambda machine, _: machine.extend(machine.take(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda machine, code: machine.name("copyreg", str(code))),
    "GLOBAL": _name,
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "PERSID": _Machine.refer,
    "BINPERSID": lambda machine, _: machine.refer(machine.stack.pop()),
    "REDUCE": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.take(2)),
    "NEWOBJ_EX": lambda machine, _: machine.call(*machine.take(3)),
    "INST": _instance,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(machine.stack.pop()),
}
