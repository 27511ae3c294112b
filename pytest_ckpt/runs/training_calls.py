"""Which calls that torch announces are part of training: modules are called for other ends too, and so are optimizers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from types import FrameType

_MODULE: Final = "torch.distributed.checkpoint.state_dict"
_FUNCTION: Final = "_init_optim_state"


def is_training() -> bool:
    """Say whether a module that is called now may be trained: not in an evaluation, backward pass, transform or trace."""
    return (
        torch.is_grad_enabled()
        and torch._C._current_graph_task_id() == -1  # noqa: SLF001 - activation checkpointing calls forward again
        and torch._C._functorch.maybe_current_level() is None  # noqa: SLF001 - vmap and grad see batched tensors
        and not torch._C._is_tracing()  # noqa: SLF001 - torch.jit.is_tracing, without its deprecation
    )


def is_pretended() -> bool:
    """Say whether an optimizer steps now only to make its state, its gradients and its learning rate being zero.

    torch has it do so before that state is read or loaded.
    """
    if _MODULE not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect would read the sources of all
    while frame is not None:
        if frame.f_code.co_name == _FUNCTION and frame.f_globals.get("__name__") == _MODULE:
            return True
        frame = frame.f_back
    return False
