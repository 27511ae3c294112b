"""What a session knows: which item stands for which contract, and the kinds of contracts and frameworks there are."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.experiments.combinations import Sweep
    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.shell.marks import Asked, Registry

registry_key: pytest.StashKey[Registry] = pytest.StashKey()
frameworks_key: pytest.StashKey[Sequence[Framework]] = pytest.StashKey()
asked_key: pytest.StashKey[Asked] = pytest.StashKey()
#: The node id of an item's test, without the contract.
test_key: pytest.StashKey[str] = pytest.StashKey()

sweep_key: pytest.StashKey[Sweep] = pytest.StashKey()


def is_contract_item(item: pytest.Item) -> bool:
    """Say whether an item stands for one contract of one test."""
    return asked_key in item.stash


def registry_of(config: pytest.Config) -> Registry:
    """Return the kinds of contracts that this session knows.

    Raises:
        pytest.UsageError: a plugin adds something that is no kind of contract, or a name that is taken.
    """
    if registry_key not in config.stash:
        from pytest_ckpt import contracts  # most sessions ask for none
        from pytest_ckpt.shell.marks import Registry

        added = _added(config.hook.pytest_ckpt_contracts(config=config), "pytest_ckpt_contracts")
        for kind in added:
            if not (isinstance(kind, type) and str(getattr(kind, "name", "")).isidentifier()):
                message = (
                    f"pytest_ckpt_contracts returned {kind!r}: return classes with a `name` that can end a marker's"
                )
                raise pytest.UsageError(message)
        config.stash[registry_key] = Registry([*contracts.builtin(), *added])
    return config.stash[registry_key]


def frameworks_of(config: pytest.Config) -> Sequence[Framework]:
    """Return the adapters of frameworks that this session knows, those added by others first.

    Raises:
        pytest.UsageError: a plugin adds something that is no adapter.
    """
    if frameworks_key not in config.stash:
        from pytest_ckpt import frameworks
        from pytest_ckpt.frameworks.protocol import Framework

        added: list[Framework] = []
        for one in _added(config.hook.pytest_ckpt_frameworks(config=config), "pytest_ckpt_frameworks"):
            if isinstance(one, type) or not isinstance(one, Framework):
                message = (
                    f"pytest_ckpt_frameworks returned {one!r}: return objects with the methods of pytest_ckpt.Framework"
                )
                raise pytest.UsageError(message)
            added.append(one)
        config.stash[frameworks_key] = (*added, *frameworks.builtin())
    return config.stash[frameworks_key]


def _added(answers: Iterable[object], hook: str) -> list[Any]:
    """Return what the implementations of a hook add."""
    answers = list(answers)
    for answer in answers:
        if not isinstance(answer, Iterable):
            message = f"{hook} returned {answer!r}: return a list"
            raise pytest.UsageError(message)
    return list(chain.from_iterable(cast("Iterable[Iterable[object]]", answers)))
