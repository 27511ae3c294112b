"""Hooks by which other packages and conftest files add contracts and frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ckpt.contracts.base import Contract
    from pytest_ckpt.frameworks.protocol import Framework


@pytest.hookspec
def pytest_ckpt_contracts(config: pytest.Config) -> Iterable[type[Contract]]:
    """Return further kinds of contracts.

    Called once in `pytest_configure` of every process of the session, workers included, so an implementation must be
    registered by then: in a plugin or in a `conftest.py` of the root directory. Each class becomes a marker `ckpt_<name>` whose
    arguments are the fields of the class. A name that is taken already is an error.
    `pytest_ckpt.testing.check_contract` checks that a class is fit for this.
    """
    raise NotImplementedError


@pytest.hookspec
def pytest_ckpt_frameworks(config: pytest.Config) -> Iterable[Framework]:
    """Return adapters of further frameworks.

    Called once in `pytest_configure` of every process of the session, workers included. An adapter is asked before the
    built-in ones. Its module must not import the framework itself.
    `pytest_ckpt.testing.check_framework` checks that an adapter is fit for this.
    """
    raise NotImplementedError
