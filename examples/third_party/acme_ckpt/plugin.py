"""The hooks. pytest imports this module in every session, so everything else is imported when it is asked for."""

from __future__ import annotations

import pytest

# Whoever implements a hook may leave out its arguments.
# optionalhook: without pytest-ckpt, as under -p no:ckpt, nobody knows these hooks, and that is no error.


@pytest.hookimpl(optionalhook=True)
def pytest_ckpt_contracts():
    """Add the mark ckpt_model_card."""
    from acme_ckpt.model_card import ModelCard

    return [ModelCard]


@pytest.hookimpl(optionalhook=True)
def pytest_ckpt_frameworks():
    """Add the trainer of acme_train."""
    from acme_ckpt.framework import AcmeTrain

    return [AcmeTrain()]
