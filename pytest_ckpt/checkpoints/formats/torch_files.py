"""Files that `torch.save` or `pickle.dump` wrote, opened without running anything in them."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from pytest_ckpt.checkpoints.file_content import DamagedFile, NotACheckpointFile, ReadError
from pytest_ckpt.checkpoints.formats.document import Document
from pytest_ckpt.checkpoints.formats.inert_pickle import parse_pickle
from pytest_ckpt.checkpoints.formats.pickled_objects import PickledObjects
from pytest_ckpt.checkpoints.formats.storage import Storage, in_native_order
from pytest_ckpt.checkpoints.formats.torch_storage import parse_legacy, storage_reference
from pytest_ckpt.checkpoints.formats.tree import Branch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_ckpt.checkpoints.formats.inert_pickle import ParsedPickle
    from pytest_ckpt.checkpoints.formats.nodes import Persistent
    from pytest_ckpt.checkpoints.formats.zip_archive import ZipArchive

_PICKLE_RECORD = "data.pkl"


def open_torch_zip(path: Path, archive: ZipArchive) -> Document:
    """Open what `torch.save` writes today: an archive with a pickle and one record for each storage.

    Raises:
        NotACheckpointFile: the archive holds no such pickle.
    """
    return Document(path=path, format="torch-zip", branches=(_branch(path, archive),), rewritten=archive.rewritten)


def open_torch_shard(path: Path, archives: Sequence[ZipArchive]) -> Document:
    """Open a file of a distributed checkpoint: several such archives; their keys are "0", "1" and so on.

    The tensors' own names stand in another file, which also holds where each archive begins.
    """

    def refuse() -> bytes:
        raise ReadError(
            path, "a shard of a distributed checkpoint, which cannot be changed: another file has its sizes"
        )

    branches = tuple(_branch(path, archive, str(index)) for index, archive in enumerate(archives))
    return Document(path=path, format="torch-zip", branches=branches, rewritten=refuse)


def _branch(path: Path, archive: ZipArchive, key: str = "") -> Branch:
    names = [name for name in archive.records if name.rpartition("/")[2] == _PICKLE_RECORD]
    if not names:
        first = min(archive.records, default="nothing")
        raise NotACheckpointFile(path, f"a zip archive without tensors; it holds {first}")
    name = min(names, key=len)
    pickled = archive.records[name]
    parsed = parse_pickle(path, BytesIO(pickled), pickled, name=f"record {name}")
    storages = _ArchivedStorages(archive, name.removesuffix(_PICKLE_RECORD))
    return _pickled(parsed, PickledObjects(path, storages).meaning, key)


def _pickled(parsed: ParsedPickle, meaning: Callable[[object], object], key: str = "") -> Branch:
    return Branch(root=parsed.root, key=key, meaning=meaning, globals=parsed.globals, protocol=parsed.protocol)


class _ArchivedStorages:
    """The storages of an archive, one for each key: tied tensors view the same one."""

    def __init__(self, archive: ZipArchive, prefix: str) -> None:
        self._archive = archive
        self._prefix = prefix
        self._found: dict[str, Storage] = {}
        order = archive.records.get(f"{prefix}byteorder", memoryview(b"little"))
        self._byte_order = order.tobytes().decode("ascii", "replace")

    def __call__(self, persistent: Persistent) -> Storage:
        reference = storage_reference(self._archive.path, persistent)
        if reference.key not in self._found:
            data = self._archive.record(f"{self._prefix}data/{reference.key}", reference.size)
            data = in_native_order(data, self._byte_order, reference.dtype)
            self._found[reference.key] = Storage(dtype=reference.dtype, data=data)
        return self._found[reference.key]


def open_torch_legacy(path: Path, data: memoryview) -> Document:
    """Open what `torch.save` wrote before torch 1.6, and still does if it is told to."""
    stream = parse_legacy(path, data)
    branch = _pickled(stream.parsed, PickledObjects(path, stream.storage).meaning)
    return Document(path=path, format="torch-legacy", branches=(branch,), rewritten=lambda: data)


def open_pickle(path: Path, data: memoryview) -> Document:
    """Open what `pickle.dump` writes."""

    def refuse(_: Persistent) -> Storage:
        raise ReadError(path, "a pickle refers to storages outside itself, and there are none")

    stream = BytesIO(data)
    parsed = parse_pickle(path, stream, data, name="pickle")
    if rest := len(data) - stream.tell():
        raise DamagedFile(path, "pickle", "the end of the file behind it", f"{rest} more bytes")
    branch = _pickled(parsed, PickledObjects(path, refuse).meaning)
    return Document(path=path, format="pickle", branches=(branch,), rewritten=lambda: data)
