"""What stands in the way of loading a file elsewhere: keys that bear a wrapper's name, and classes that torch refuses to use."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.checkpoint import WRAPPERS, Wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ckpt.checkpoints.file_content import FileContent, TensorEntry
    from pytest_ckpt.checkpoints.state_table import StateTable

#: The first pickle protocol whose instructions the reader of `torch.load(weights_only=True)` does not have.
_TOO_HIGH: Final = 4
#: Modules that let in their own classes as soon as they are imported.
_LET_IN_LATER: Final = ("torch.nested.", "torch.distributed.tensor.", "torch.distributed.device_mesh.")


def wrapped(files: Mapping[str, FileContent], table: StateTable) -> tuple[Wrapped, ...]:
    """Return the trained parameters of which a checkpoint has no copy but those under keys that bear a wrapper's name."""
    keys: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path, content in files.items():
        for entry in content.tensors:
            for parameter in _trained(entry, table):
                keys[parameter].append((entry.key, path))
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for places in keys.values():
        words = [_wrapper(key, table) for key, _ in places]
        if all(words):
            found[words[0]].append(places[0])
    return tuple(
        Wrapped(wrapper=word, count=len(places), key=places[0][0], path=places[0][1]) for word, places in found.items()
    )


def _trained(entry: TensorEntry, table: StateTable) -> set[str]:
    """Return the trained parameters that a tensor may be, by its value; none for one that may be an average."""
    hits = table.hits.get(entry.digest, {}) if table.knows(entry) else {}
    if any(hit.kind == "ema" for hit in hits):
        return set()
    return {hit.key for hit in hits if hit.kind == "weights" and hit.key in table.trained}


def _wrapper(key: str, table: StateTable) -> str:
    """Return the wrapper's name that a key bears, if the job has no part of that name itself."""
    return next((word for word in key.split(".") if word in WRAPPERS and word not in table.own_names), "")


def refused(content: FileContent) -> tuple[str, ...]:
    """Return what a file that `torch.save` wrote names, and `torch.load(weights_only=True)` refuses to use by itself."""
    if content.format not in {"torch-zip", "torch-legacy"}:
        return ()
    from torch import _weights_only_unpickler  # it has been imported: a job has saved with it

    known = getattr(_weights_only_unpickler, "_get_allowed_globals", None)
    if known is None:
        return ()
    names = [name for name in content.globals if name not in known() and not name.startswith(_LET_IN_LATER)]
    return (*names, f"pickle protocol {content.protocol}") if content.protocol >= _TOO_HIGH else tuple(names)
