"""What a rehearsal puts in the place of the compute, and what that cannot stand for."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_ckpt.records.codec import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal(Record):
    """A run of the real schedule without the compute.

    Attributes:
        replaced: what something else stood in for, such as `the model`.
        reached: what of the job, or of its framework, met a stand-in where it needs the real thing; each names who read what.
        world_size: processes that the schedule was worked out for; one of them was run.
        origin: where the schedule comes from if not from the job's own code, as part of a sentence.
        seconds_per_step: how long each step took on a clock that was replaced; 0 if none was.
        metric: what evaluations answered, in a few words; empty if nothing was evaluated.
    """

    replaced: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    world_size: int = 1
    origin: str = ""
    metric: str = ""
    seconds_per_step: float = 0.0
