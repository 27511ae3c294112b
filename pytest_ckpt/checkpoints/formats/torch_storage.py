"""Storages as torch refers to them in a pickle, and the stream format in which they follow one.

`torch.save` wrote that stream before it wrote zip archives, and `pickle.dump` still writes one for every storage.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_ckpt.checkpoints.file_content import DamagedFile, ReadError
from pytest_ckpt.checkpoints.formats.inert_pickle import ParsedPickle, parse_pickle
from pytest_ckpt.checkpoints.formats.nodes import Global, Persistent
from pytest_ckpt.checkpoints.formats.storage import Storage, in_native_order, item_size

if TYPE_CHECKING:
    from pathlib import Path

#: The number at the beginning of every such stream, as all binary pickle protocols write it.
LEGACY_MAGIC: Final = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_STORAGE_DTYPES: Final = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "QInt32Storage": "qint32",
    "QInt8Storage": "qint8",
    "QUInt2x4Storage": "quint2x4",
    "QUInt4x2Storage": "quint4x2",
    "QUInt8Storage": "quint8",
    "ShortStorage": "int16",
    "UntypedStorage": "uint8",
}

#: Finds the storage that an outside reference of a pickle means.
StorageSource: TypeAlias = Callable[[Persistent], Storage]


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageReference:
    """What a pickle says of a storage it does not hold."""

    dtype: str
    key: str
    numel: int

    @property
    def size(self) -> int:
        """How many bytes the storage takes."""
        return self.numel * (item_size(self.dtype) or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyStream:
    """A pickle and the storages that follow it, by key."""

    parsed: ParsedPickle
    storages: Mapping[str, Storage]
    path: Path

    def storage(self, reference: Persistent) -> Storage:
        """Find the storage that a reference in the pickle means."""
        return self.storages[storage_reference(self.path, reference).key]


def storage_reference(path: Path, persistent: Persistent) -> StorageReference:
    """Read what an outside reference of a pickle says.

    Raises:
        ReadError: it is no reference to a storage, or to one of an unknown type.
    """
    match persistent.id:
        case ("storage", Global(name=kind), str() as key, _, int() as numel, *rest) if kind in _STORAGE_DTYPES:
            if any(part is not None for part in rest):
                raise ReadError(path, f"storage {key} is a view of another one, as only early versions of torch wrote")
            return StorageReference(dtype=_STORAGE_DTYPES[kind], key=key, numel=numel)
        case ("storage", Global(name=kind), *_):
            raise ReadError(path, f"a storage of type {kind}, whose size is not known")
    raise ReadError(path, "a pickle refers to something outside that is no storage of a tensor")


def parse_legacy(path: Path, buffer: memoryview) -> LegacyStream:
    """Read a whole stream: three pickles about the format, that of the object, the storage keys, the storages.

    Raises:
        DamagedFile: the stream ends early, or a storage has another size than the pickle says.
    """
    stream = BytesIO(buffer)
    for name in ("magic number", "protocol version"):
        parse_pickle(path, stream, buffer, name=name)
    system = parse_pickle(path, stream, buffer, name="system information").root
    parsed = parse_pickle(path, stream, buffer, name="pickle of the object")
    keys = parse_pickle(path, stream, buffer, name="list of storages").root
    little = not isinstance(system, dict) or system.get("little_endian", True)
    reader = _StorageReader(path, buffer, "little" if little else "big")
    storages = reader.read(stream.tell(), _text_items(keys), _references(path, parsed))
    return LegacyStream(parsed=parsed, storages=storages, path=path)


def _text_items(keys: object) -> list[str]:
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _references(path: Path, parsed: ParsedPickle) -> Mapping[str, StorageReference]:
    """Return the first reference to each storage: its type is the one in which the storage was written."""
    found: dict[str, StorageReference] = {}
    for persistent in parsed.persistent:
        if isinstance(persistent.id, tuple) and persistent.id[:1] == ("module",):
            continue  # a module class with its source text
        reference = storage_reference(path, persistent)
        found.setdefault(reference.key, reference)
    return found


@dataclass(frozen=True, slots=True)
class _StorageReader:
    path: Path
    buffer: memoryview
    byte_order: str

    def read(self, start: int, keys: list[str], references: Mapping[str, StorageReference]) -> Mapping[str, Storage]:
        if missing := set(references) - set(keys):
            expected = f"{len(references)} storages, among them {min(missing)}"
            raise DamagedFile(self.path, "list of storages", expected, f"{len(keys)}")
        storages = {}
        for key in keys:
            if key not in references:
                raise DamagedFile(self.path, "list of storages", "those that the pickle refers to", key)
            storages[key], start = self._read_one(start, references[key])
        return storages

    def _read_one(self, start: int, reference: StorageReference) -> tuple[Storage, int]:
        begin, end = start + 8, start + 8 + reference.size
        if end > len(self.buffer):
            found = f"{max(len(self.buffer) - begin, 0)} before the end of the file"
            raise DamagedFile(self.path, f"storage {reference.key}", f"{reference.size} bytes", found)
        (numel,) = struct.unpack_from("<q", self.buffer, start)
        if numel != reference.numel:
            raise DamagedFile(self.path, f"storage {reference.key}", f"{reference.numel} elements", f"{numel}")
        data = in_native_order(self.buffer[begin:end], self.byte_order, reference.dtype)
        return Storage(dtype=reference.dtype, data=data), end
