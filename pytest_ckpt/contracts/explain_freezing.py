"""Saying that a resumed run does not train parameters which the uninterrupted one trains, as after an unfreezing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.difference_rows import rows
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.trajectory import StepDifference
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.state import StepRecord


def frozen_parameters(found: StepDifference, run: RunRecord, baseline: RunRecord) -> tuple[str, ...]:
    """Return the parameters that get a gradient in every step of the baseline from here on, and in none of the resumed run.

    Those that a random draw or another batch leaves out of one step are none, nor are there any where weights differ.
    """
    expected, actual = _trained(found.expected), _trained(found.found)
    one_draw = len(run.steps) == 1 and found.rng_differs
    if "weights" in found.keys or one_draw or not actual or not actual < expected:
        return ()
    steps = baseline.steps[found.step - 1 : found.step - 1 + len(run.steps)]
    always = expected.intersection(*map(_trained, steps))
    return tuple(sorted(always.difference(*map(_trained, run.steps))))


def _trained(step: StepRecord) -> frozenset[str]:
    return frozenset(step.state.get("gradients", {}))


def frozen_again(found: StepDifference, frozen: tuple[str, ...], checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    """Describe them; the tensors that enter the first trained part, and the names in the optimizer, are others only for that."""
    start, trained = evidence.baseline.step_of(checkpoint), len(_trained(found.expected))
    gradients = replace(found, keys={"gradients": frozen}, rng_differs=())
    return Finding(
        title=f"resumed from step {start}: step {found.step} does not train {len(frozen)} of {trained} parameters that the "
        f"uninterrupted run trains, {frozen[0]} first",
        rows=tuple(row for row in rows(gradients, evidence) if row[0] in {"weights", "gradients"}),
        cause="these parameters are frozen after the resume, or in no optimizer: they were unfrozen in training, and which "
        "require gradients is in no state dict.",
        fix="restore which parameters require gradients, by the step or the epoch that is resumed from, before training goes on.",
        step=found.step,
        component="gradients",
        checkpoint=checkpoint.identity,
    )
