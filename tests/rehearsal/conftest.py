"""What all rehearsals in this process share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def few_objects() -> Iterator[None]:
    """Hide what is imported from the garbage collector: accelerate has it search all objects at each start of training."""
    gc.freeze()
    yield
    gc.unfreeze()
