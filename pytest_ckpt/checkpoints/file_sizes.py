"""How many bytes the files of a checkpoint have, how many its tensors need, and where the rest comes from."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_ckpt.records.checkpoint import Excess, FileSize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_ckpt.checkpoints.file_content import FileContent, Memory
    from pytest_ckpt.checkpoints.state_table import StateTable

#: The largest reasons that are worth a line.
_MOST: Final = 3
#: As PEFT names what belongs to an adapter, and the model that it is put on.
_ADAPTER: Final = ("lora_", "modules_to_save", "prompt_encoder", "ia3_")
_BASE: Final = "base_model.model."


class _Part(NamedTuple):
    memory: Memory
    excess: Excess | None


def file_sizes(files: Mapping[str, tuple[FileContent, int]], table: StateTable) -> tuple[FileSize, ...]:
    """Return the sizes of the files of tensors of one checkpoint; a tensor that lies in two of them is needed once."""
    seen: dict[str, str] = {}
    return tuple(
        _size_of(path, content, stored, seen, table)
        for path, (content, stored) in files.items()
        if content.tensors or content.unreadable
    )


def _size_of(path: str, content: FileContent, stored: int, seen: dict[str, str], table: StateTable) -> FileSize:
    frozen = _base_weights(path, content, table)
    parts = [_Part(memory, _excess(path, memory, seen, frozen)) for memory in content.memory]
    rest = stored - sum(memory.stored for memory in content.memory)
    found = [part.excess for part in parts if part.excess is not None]
    found.append(Excess(key="", stored=max(rest, 0), needed=0, why="rest"))
    return FileSize(
        path=path,
        stored=stored,
        needed=sum(part.memory.needed if part.excess is None else part.excess.needed for part in parts),
        tensors=len(parts),
        unread=len(content.unreadable),
        excess=_largest(found),
    )


def _largest(found: Iterable[Excess]) -> tuple[Excess, ...]:
    return tuple(sorted(found, key=lambda excess: excess.needed - excess.stored)[:_MOST])


def _excess(path: str, memory: Memory, seen: dict[str, str], frozen: frozenset[str]) -> Excess | None:
    """Return why memory takes more bytes than it has to, if it does."""
    key = memory.keys[0]
    if memory.digest in seen:
        return Excess(key=key, stored=memory.stored, needed=0, why="copy", other=seen[memory.digest])
    if memory.digest:
        seen[memory.digest] = f"{key} in {path}" if key else path
    if key in frozen:
        return Excess(key=key, stored=memory.stored, needed=0, why="base")
    if memory.needed < memory.stored:
        return Excess(key=key, stored=memory.stored, needed=memory.needed, why="view")
    return None


def _base_weights(path: str, content: FileContent, table: StateTable) -> frozenset[str]:
    """Return the weights under an adapter that were not trained; what PEFT itself writes has none that it does not need."""
    keys = [entry.key for entry in content.tensors]
    if PurePosixPath(path).name.startswith("adapter_model") or not any("lora_" in key for key in keys):
        return frozenset()
    return frozenset(entry.key for entry in content.tensors if _is_base(entry.key) and not table.trains(entry))


def _is_base(key: str) -> bool:
    return (_BASE in key or ".base_layer." in key) and not any(part in key for part in _ADAPTER)
