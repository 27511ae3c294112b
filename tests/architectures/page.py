"""The page of architectures: how many of them become tiny models that train, which do, and why the others do not."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Final

from pytest_ckpt.tiny.models import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .training import Trained

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
_ABOUT: Final = """\
# Architectures

`tiny_causal_lm(arch)` takes any model type that the installed transformers registers for causal language models. It
shrinks the default configuration by the names of its fields, so that it knows architectures that nobody here has heard
of. This page is written by `python -m tests.architectures`, which makes each of them and trains it on `tiny_text` for
two steps: the loss has to be finite, and the weights have to move.

{summary}

## Those that do

{names}

## Those that do not

| model type | why |
|---|---|
{others}
"""


def page(tried: Sequence[Trained], version: str) -> str:
    """Return the text of the page.

    Args:
        tried: what became of each architecture.
        version: of transformers.
    """
    good = [told for told in tried if not told.problem]
    share = f"{len(good)} ({100 * len(good) // len(tried)} %)"
    return _ABOUT.format(
        summary=_filled(f"Of {len(tried)} model types of transformers {version}, {share} do. {_sizes(good)}"),
        names=_filled(", ".join(f"`{told.model_type}`" for told in good)),
        others="\n".join(_row(told) for told in tried if told.problem),
    )


def _filled(text: str) -> str:
    return fill(text, 120, break_on_hyphens=False)


def _sizes(good: Sequence[Trained]) -> str:
    by_size = sorted(good, key=lambda told: told.size)
    middle, largest = by_size[len(by_size) // 2], by_size[-1]
    return (
        f"Half of those have weights of at most {middle.size // 1000} kB; the largest, `{largest.model_type}`, has "
        f"{largest.size // 1000} kB, and what would take more than {MOST_BYTES // 1000} kB is refused."
    )


def _row(told: Trained) -> str:
    reason = told.problem.replace("|", "\\|").replace("<", "&lt;")
    return f"| `{told.model_type}` | {reason} |"
