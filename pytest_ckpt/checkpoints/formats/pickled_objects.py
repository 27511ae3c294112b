"""The meaning of what torch puts into a pickle, told from the names of its functions and their arguments alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_ckpt.checkpoints.file_content import DamagedFile
from pytest_ckpt.checkpoints.formats import numpy_objects
from pytest_ckpt.checkpoints.formats.nodes import Blob, Global, Inert, Persistent, UnexpectedNode
from pytest_ckpt.checkpoints.formats.raw_tensor import RawTensor, check_bounds
from pytest_ckpt.checkpoints.formats.storage import Storage, item_size
from pytest_ckpt.checkpoints.formats.torch_storage import StorageSource, parse_legacy

if TYPE_CHECKING:
    from pathlib import Path

#: A tensor that repeats its elements (`expand`) is not written out beyond this size.
_LARGEST_EXPANDED: Final = 1 << 32
_WITHOUT_PLAIN_ELEMENTS: Final = {
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a meta tensor",
    "torch._utils._rebuild_wrapper_subclass": "a tensor that wraps others",
}


@dataclass(frozen=True, slots=True)
class Unread:
    """A tensor in a file whose elements the file does not state plainly."""

    kind: str


@dataclass(slots=True)
class PickledObjects:
    """Tells tensors, arrays and plain values from the calls that would make them.

    Attributes:
        path: the file, for messages.
        storage_source: finds the storages that the pickle refers to.
    """

    path: Path
    storage_source: StorageSource
    _embedded: dict[int, Storage] = field(default_factory=dict)

    def meaning(self, node: object) -> object:
        """Return the tensor, bytes or plain value that a node of the pickle stands for, else the node itself.

        Raises:
            DamagedFile: a function of torch or numpy is named with arguments that it is never given.
        """
        if isinstance(node, Persistent):
            return Unread("a storage without a tensor")
        if not isinstance(node, Inert):
            return node
        name = str(node.callee) if isinstance(node.callee, Global) else ""
        if name in _WITHOUT_PLAIN_ELEMENTS:
            return Unread(_WITHOUT_PLAIN_ELEMENTS[name])
        rule = _RULES.get(name.replace("numpy._core.", "numpy.core."))
        try:
            return node if rule is None else rule(self, node)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            found = f"{len(node.args)} others ({error})"
            raise DamagedFile(self.path, "a pickled object", f"the arguments of {name}", found) from error

    def tensor(self, node: Inert) -> object:
        """Read `_rebuild_tensor` and its later versions: storage, offset, shape, stride, then what is not compared."""
        storage = self._storage(node.args[0])
        dtype = storage.dtype
        metadata_at = 6
        if str(node.callee).endswith("_v3"):
            dtype, metadata_at = _dtype(node.args[6]), 7
        if item_size(dtype) is None:
            return Unread(f"a tensor of type {dtype}")
        bits = self.meaning(node.args[metadata_at]) if len(node.args) > metadata_at else None
        bits = bits if isinstance(bits, dict) else {}
        return self._checked(
            RawTensor(
                dtype=dtype,
                offset=_integers((node.args[1],))[0],
                shape=self._integers(node.args[2]),
                stride=self._integers(node.args[3]),
                storage=storage,
                conjugated=bool(bits.get("conj")),
                negated=bool(bits.get("neg")),
            )
        )

    def _checked(self, tensor: RawTensor) -> RawTensor | Unread:
        check_bounds(self.path, tensor)
        size = tensor.numel * tensor.item_size
        if size > len(tensor.storage.data) and size > _LARGEST_EXPANDED:
            return Unread(f"an expanded tensor of {size} bytes")
        return tensor

    def _integers(self, node: object) -> tuple[int, ...]:
        return _integers(self.meaning(node))

    def _storage(self, node: object) -> Storage:
        if isinstance(node, Persistent):
            return self.storage_source(node)
        if not isinstance(node, Inert) or str(node.callee) != "torch.storage._load_from_bytes":
            raise UnexpectedNode(node, "a storage")
        if id(node) not in self._embedded:
            blob = self.meaning(node.args[0])
            if not isinstance(blob, Blob):
                raise UnexpectedNode(blob, "bytes")
            stream = parse_legacy(self.path, blob.view)
            if not isinstance(stream.parsed.root, Persistent):
                raise UnexpectedNode(stream.parsed.root, "a storage in bytes")
            self._embedded[id(node)] = stream.storage(stream.parsed.root)
        return self._embedded[id(node)]

    def wrapped(self, node: Inert) -> object:
        """Read what only adds something to its first argument: parameters, sizes, sets."""
        return self.meaning(node.args[0]) if node.args else ()

    def from_device(self, node: Inert) -> object:
        """Read a tensor whose elements were moved off a device that has no storage."""
        tensor = self.meaning(node.args[0])
        dtype = _dtype(node.args[1])
        if isinstance(tensor, RawTensor) and tensor.dtype != dtype:
            return Unread(f"a {dtype} tensor saved as {tensor.dtype}")
        return tensor

    def subclass(self, node: Inert) -> object:
        """Read a tensor of a subclass: its arguments are a function, the type, and the arguments of the function."""
        function, kind, args = node.args[:3]
        if str(function) in _WITHOUT_PLAIN_ELEMENTS:
            return Unread(f"a {kind.name}" if isinstance(kind, Global) else "a tensor that wraps others")
        if not isinstance(args, tuple):
            raise UnexpectedNode(args, "arguments")
        return self.meaning(Inert(function, args))

    def encoded(self, node: Inert) -> object:
        """Read bytes as pickles before protocol 3 wrote them: text, and its encoding."""
        text, encoding = node.args
        if not isinstance(text, str) or encoding != "latin1":
            raise UnexpectedNode(text, "bytes as latin1 text")
        return Blob(memoryview(text.encode("latin1")))

    def device(self, node: Inert) -> object:
        """Read a device as text."""
        return ":".join(str(part) for part in node.args)

    def array(self, node: Inert) -> object:
        """Read a numpy array: its `__setstate__` gets version, shape, type, order and bytes."""
        if not isinstance(node.state, tuple):
            raise UnexpectedNode(node.state, "the state of an array")
        _, shape, dtype, fortran, data = node.state
        return self._array(dtype, shape, data, order="F" if fortran else "C")

    def array_from_buffer(self, node: Inert) -> object:
        """Read a numpy array as protocol 5 writes it."""
        data, dtype, shape, order = node.args
        return self._array(dtype, shape, data, order=str(order))

    def _array(self, dtype: object, shape: object, data: object, *, order: str) -> object:
        data = self.meaning(data)
        if isinstance(data, list):
            return data
        name = numpy_objects.type_code(dtype)
        if name.torch_name is None or not isinstance(data, Blob):
            return Unread(f"a numpy array of type {name.code}")
        return check_bounds(self.path, numpy_objects.array(name, self._integers(shape), data.view, order=order))

    def number(self, node: Inert) -> object:
        """Read a numpy scalar: its type and its bytes."""
        dtype, data = node.args
        blob = self.meaning(data)
        if not isinstance(blob, Blob):
            return node
        return numpy_objects.number(numpy_objects.type_code(dtype), blob.view)


def _dtype(node: object) -> str:
    if not isinstance(node, Global) or node.module != "torch":
        raise UnexpectedNode(node, "an element type")
    return node.name


def _integers(node: object) -> tuple[int, ...]:
    parts = node if isinstance(node, (tuple, list)) else ()
    integers = tuple(part for part in parts if isinstance(part, int))
    if not isinstance(node, (tuple, list)) or len(integers) != len(node):
        raise UnexpectedNode(node, "a tuple of integers")
    return integers


_Rule: TypeAlias = Callable[[PickledObjects, Inert], object]
_RULES: Final[Mapping[str, _Rule]] = {
    "torch._utils._rebuild_tensor": PickledObjects.tensor,
    "torch._utils._rebuild_tensor_v2": PickledObjects.tensor,
    "torch._utils._rebuild_tensor_v3": PickledObjects.tensor,
    "torch._utils._rebuild_parameter": PickledObjects.wrapped,
    "torch._utils._rebuild_parameter_with_state": PickledObjects.wrapped,
    "torch._utils._rebuild_device_tensor_from_numpy": PickledObjects.from_device,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": PickledObjects.from_device,
    "torch._tensor._rebuild_from_type": PickledObjects.subclass,
    "torch._tensor._rebuild_from_type_v2": PickledObjects.subclass,
    "torch.Size": PickledObjects.wrapped,
    "torch.device": PickledObjects.device,
    "builtins.frozenset": PickledObjects.wrapped,
    "builtins.set": PickledObjects.wrapped,
    "__builtin__.frozenset": PickledObjects.wrapped,
    "__builtin__.set": PickledObjects.wrapped,
    "_codecs.encode": PickledObjects.encoded,
    "numpy.core.multiarray._reconstruct": PickledObjects.array,
    "numpy.core.multiarray.scalar": PickledObjects.number,
    "numpy.core.numeric._frombuffer": PickledObjects.array_from_buffer,
}
