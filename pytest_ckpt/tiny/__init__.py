"""Models, data and tokenizers made on the spot: small, seeded, never downloaded, and made to go with one another.

Importing this package imports no framework. Each name is loaded from its module when it is first used, and only that
module imports torch or transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pytest_ckpt.tiny.data import text, vectors
    from pytest_ckpt.tiny.models import causal_lm, classifier
    from pytest_ckpt.tiny.networks import torch_model
    from pytest_ckpt.tiny.tokens import tokenizer

_HOMES: Final = {
    "causal_lm": "pytest_ckpt.tiny.models",
    "classifier": "pytest_ckpt.tiny.models",
    "text": "pytest_ckpt.tiny.data",
    "tokenizer": "pytest_ckpt.tiny.tokens",
    "torch_model": "pytest_ckpt.tiny.networks",
    "vectors": "pytest_ckpt.tiny.data",
}

__all__ = ["causal_lm", "classifier", "text", "tokenizer", "torch_model", "vectors"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
