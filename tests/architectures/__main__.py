"""Tries all architectures and writes docs/architectures.md: `python -m tests.architectures`; those named are only tried."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_ckpt.tiny.architectures import registered

from .page import PAGE, page
from .trying import try_all

if TYPE_CHECKING:
    from .training import Trained


def show(told: Trained) -> None:
    """Print a line of one architecture."""
    sys.stdout.write(f"{told.model_type:30} {told.size:9} {told.seconds:6.1f}s  {told.problem or 'trains'}\n")
    sys.stdout.flush()


def main(names: list[str]) -> None:
    """Try those named, or all of them and write the page."""
    import transformers

    tried = try_all(names or registered("causal language model"), show)
    if not names:
        PAGE.write_text(page(tried, transformers.__version__), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
