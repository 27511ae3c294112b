"""Steps of an optimizer that are none: torch takes one for an optimizer to make its state, before that is read or loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_MODULE: Final = "torch.distributed.checkpoint.state_dict"
_FUNCTION: Final = "_init_optim_state"


def is_pretended() -> bool:
    """Say whether an optimizer steps now only to make its state, its gradients and its learning rate being zero."""
    if _MODULE not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect would read the sources of all
    while frame is not None:
        if frame.f_code.co_name == _FUNCTION and frame.f_globals.get("__name__") == _MODULE:
            return True
        frame = frame.f_back
    return False
