"""Zip archives of uncompressed records, as `torch.save` and `numpy.savez` write them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.file_content import DamagedFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Torch maps records into memory, where numbers must not straddle; it aligns each one itself.
_ALIGNMENT: Final = 64
_LOCAL_HEADER: Final = 30
_EXTRA_HEADER: Final = 4
_PADDING_ID: Final = b"FB"
#: What zipfile raises at bytes that are no archive, depending on where they are wrong; it reads from memory here.
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_END_OF_DIRECTORY: Final = b"PK\x05\x06"
_END_SIZE: Final = 22
#: Torch always writes the records for archives of more than 4 GB, which stand before the end record.
_LARGE_END_SIZE: Final = 76


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipArchive:
    """The records of an archive in memory; writing into one changes what `rewritten` returns."""

    path: Path
    infos: tuple[zipfile.ZipInfo, ...]
    records: Mapping[str, memoryview]

    def record(self, name: str, size: int) -> memoryview:
        """Return the first `size` bytes of a record.

        Raises:
            DamagedFile: the archive has no such record, or a shorter one.
        """
        if name not in self.records:
            raise DamagedFile(self.path, f"record {name}", f"{size} bytes", f"{len(self.records)} other records")
        if len(self.records[name]) < size:
            raise DamagedFile(self.path, f"record {name}", f"{size} bytes", f"{len(self.records[name])}")
        return self.records[name][:size]

    def rewritten(self) -> bytes:
        """Return the archive with the records as they are now, in the same order, under the same names."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for info in self.infos:
                archive.writestr(_aligned(info, target.tell()), self.records[info.filename].tobytes())
        return target.getvalue()


def open_zips(path: Path, data: memoryview) -> tuple[ZipArchive, ...]:
    """Read all records of an archive, or of several in one file, and check each against its sum.

    Distributed checkpoints keep one archive for each tensor, one behind the other.

    Raises:
        DamagedFile: an archive has no directory (it stands at the end, so it is the first thing that a cut takes
            away), or a record is not what was written.
    """
    whole, start = _open_last(path, data)
    if start == 0:
        return (whole,)
    return tuple(_open_last(path, data[begin:end])[0] for begin, end in _bounds(path, data))


def _bounds(path: Path, data: memoryview) -> Iterator[tuple[int, int]]:
    """Find where each archive ends: behind a record that tells the size and the position of its directory."""
    content = data.tobytes()
    begin = at = 0
    while (at := content.find(_END_OF_DIRECTORY, at)) >= 0:
        end = at + _END_SIZE
        if end <= len(content):
            size, position = struct.unpack_from("<II", content, at + 12)
            if begin + position + size in {at, at - _LARGE_END_SIZE}:
                yield begin, end
                begin = end
        at += 1
    if begin != len(content):
        raise DamagedFile(path, "sequence of zip archives", f"{len(content)} bytes of archives", f"{begin}")


def _open_last(path: Path, data: memoryview) -> tuple[ZipArchive, int]:
    """Open the archive with which the data ends; return where it begins, too."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGE as error:
        found = f"none in {len(data)} bytes ({error})"
        raise DamagedFile(path, "zip archive", "a directory of its records at the end", found) from error
    with archive:
        infos = tuple(archive.infolist())
        start = min((info.header_offset for info in infos), default=0)
        records = {} if start else {info.filename: _read(path, archive, info) for info in infos}
        return ZipArchive(path=path, infos=infos, records=records), start


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> memoryview:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DamagedFile(path, f"record {info.filename}", "no compression, or deflation", f"type {info.compress_type}")
    # Torch can be told to leave out the sums; it writes 0 then, which zipfile would take for one.
    written = info.CRC
    if written == 0:
        del info.CRC
    try:
        return memoryview(bytearray(archive.read(info)))
    except _DAMAGE as error:
        raise DamagedFile(path, f"record {info.filename}", f"check sum {written:08x}", f"{error}") from error
    finally:
        info.CRC = written


def _aligned(info: zipfile.ZipInfo, position: int) -> zipfile.ZipInfo:
    """Return a header for the record whose bytes then begin at a multiple of the alignment."""
    aligned = zipfile.ZipInfo(info.filename, info.date_time)
    aligned.compress_type = info.compress_type
    end = position + _LOCAL_HEADER + len(info.filename.encode()) + _EXTRA_HEADER
    padding = -end % _ALIGNMENT
    aligned.extra = _PADDING_ID + padding.to_bytes(2, "little") + b"Z" * padding
    return aligned
