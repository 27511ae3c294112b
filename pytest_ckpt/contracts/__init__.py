"""What must hold of the checkpoints of a job: pure functions over records, one module a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Contract


def builtin() -> tuple[type[Contract], ...]:
    """Return the kinds of contracts that this package has, in the order in which reports show them."""
    from pytest_ckpt.contracts.contents import Faithful  # noqa: PLC0415 - contracts build on each other's modules
    from pytest_ckpt.contracts.resuming import Resumable  # noqa: PLC0415
    from pytest_ckpt.contracts.saving import Count, FinalStep  # noqa: PLC0415

    return (FinalStep, Count, Faithful, Resumable)
