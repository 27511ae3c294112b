"""Checks of marker arguments that several contracts have in common."""

from __future__ import annotations

from pytest_ckpt.errors import InvalidArgument


def check_flags(**given: object) -> None:
    """Check that each argument is True or False.

    Raises:
        InvalidArgument: one is not; the message names it.
    """
    for name, value in given.items():
        if not isinstance(value, bool):
            message = f"{name} must be True or False; got {value!r}"
            raise InvalidArgument(message)


def check_most(most: object, what: str) -> None:
    """Check that `most` is a number of what is tried.

    Raises:
        InvalidArgument: it is not a whole number, or below 1.
    """
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        message = f"most must be a whole number of {what}, at least 1; got {most!r}"
        raise InvalidArgument(message)
