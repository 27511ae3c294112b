"""The system calls that change files: which of them are looked at, and what each is about to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.crashes import calls_on_content, calls_on_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.crashes.seen import Seen
    from pytest_ckpt.records.operation import Operation

#: What each call is about to do; None where that is nothing to the directory.
DECODERS: Final[dict[str, Callable[[Seen], Operation | None]]] = {
    **calls_on_names.DECODERS,
    **calls_on_content.DECODERS,
}
