"""Trainer objects that fixtures have built: each process of a job then starts from a copy of one and the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_ckpt.frameworks.protocol import Framework


def live_trainers(arguments: Mapping[str, object], frameworks: Iterable[Framework]) -> dict[str, object]:
    """Return the trainers of known frameworks among a job's arguments, by the fixture that each comes from."""
    frameworks = list(frameworks)
    found: dict[str, object] = {}
    for name, value in arguments.items():
        parts = value if isinstance(value, (tuple, list)) else (value,)  # a fixture may give a model with its trainer
        for part in parts:
            if any(framework.drives(part) for framework in frameworks):
                found[name] = part
    return found


def warning_on(fixture: str, trainer: object) -> pytest.PytestWarning:
    """Say why a trainer had better be built in the test body."""
    return pytest.PytestWarning(
        f"the fixture {fixture} hands a {type(trainer).__name__} to the training job: it is built and seeded once, and each "
        "resumed process inherits it, where in production it would build its own. So what depends on how a process builds and "
        "seeds its trainer is not tested. Build it in the test body, or let the fixture return a function that does."
    )
