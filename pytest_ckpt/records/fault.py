"""What goes wrong around a job in an experiment: an error with which the kernel answers its calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from pytest_ckpt.records.codec import Record

#: `ENOSPC`: the disk is full; `EDQUOT`: the user's part of it is; `EIO`: the device fails.
ErrorName: TypeAlias = Literal["ENOSPC", "EDQUOT", "EIO"]
ERRORS: Final[tuple[ErrorName, ...]] = get_args(ErrorName)
#: What Python says of each.
SAYS: Final = {
    "ENOSPC": "No space left on device",
    "EDQUOT": "Disk quota exceeded",
    "EIO": "Input/output error",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Record):
    """An error that one call of a traced run meets, and with a full disk all later ones that need room.

    Attributes:
        error: its name.
        operation: how many operations of the traced run come before; it is the first of its kind from there on.
        kind: of the operation (`Operation.kind`).
        path: what that operation was about in the traced run; for the reader only, as names may differ between runs.
    """

    error: ErrorName
    operation: int
    kind: str
    path: str = ""

    @property
    def lasts(self) -> bool:
        """Whether later calls fail as well: a full disk stays full."""
        return self.error != "EIO"

    @property
    def title(self) -> str:
        """The fault in a few words, such as `ENOSPC at write step_4.pt`."""
        return f"{self.error} at operation {self.operation}, {self.kind} {self.path}".rstrip()
