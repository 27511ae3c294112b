"""One warm Python for all tests of the pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .running import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    """Run commands without importing the frameworks each time."""
    pytest.importorskip("transformers")
    process = Warm()
    yield process
    process.close()
