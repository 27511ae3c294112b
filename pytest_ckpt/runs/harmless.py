"""Keeping trouble of the probe away from the job that it looks at."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")


def harmless(method: Callable[P, None]) -> Callable[P, None]:
    """Keep trouble of the probe away from the job: note it, once per kind, and go on."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever the job's objects raise when they are read
            probe: Any = args[0]
            probe.trouble(f"{method.__name__}: {type(error).__name__}: {error}")

    return wrapper
