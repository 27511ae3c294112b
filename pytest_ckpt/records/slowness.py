"""A disk that is slow for what a job writes beside its training, in an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_ckpt.records.codec import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowness(Record):
    """How slow a disk is.

    Attributes:
        seconds: for which each operation of a thread or a process that does not train is held back.
        begin: seconds that each `torch.save` there waits before it begins.
    """

    seconds: float
    begin: float = 0.0

    @property
    def title(self) -> str:
        """What such a run is called in reports."""
        return "run with a slow disk in the background"
