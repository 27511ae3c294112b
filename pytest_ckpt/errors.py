"""The three ways in which this package fails, told apart because three different people can mend them."""

from __future__ import annotations


class InvalidArgument(ValueError):
    """Whoever wrote the test asked for something that makes no sense; the plugin reports it as a usage error."""


class HarnessError(RuntimeError):
    """A run could not be carried out or observed, so nothing is known about its checkpoints: an error, no failure."""


class ContractViolation(AssertionError):
    """A job was run and broke a promise about its checkpoints: a test failure like any other."""
