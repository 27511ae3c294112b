"""Saying what a difference between a resumed and an uninterrupted run means, so that the reader need not debug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.causes import CAUSES
from pytest_ckpt.contracts.difference_rows import components_text, rows, step_of_batches
from pytest_ckpt.contracts.explain_freezing import frozen_again, frozen_parameters
from pytest_ckpt.contracts.trajectory import batches
from pytest_ckpt.records.verdict import Advice, Finding

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.trajectory import StepDifference
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
#: A frame of a traceback in a function that loads, such as `load_state_dict` or `_load_from_checkpoint`.
_LOADING: Final = re.compile(r"\bin (\w*_)?load(_\w+)?$", re.MULTILINE)


def difference(found: StepDifference | str, run: RunRecord, checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    """Describe how a resumed run differs."""
    if isinstance(found, str):
        return _wrong_count(run, checkpoint, evidence)
    start = evidence.baseline.step_of(checkpoint)
    if _is_from_scratch(found, run, evidence, start):
        return _from_scratch(found, run, checkpoint, evidence)
    frozen = frozen_parameters(found, run, evidence.baseline)
    if frozen:
        return frozen_again(found, frozen, checkpoint, evidence)
    what = _what_happened(found, evidence, start)
    usual = what in {found.component, "drawn data"}
    advice = evidence.advisor.component(found.component, checkpoint) if usual else Advice()
    cause, fix = CAUSES[what]
    return Finding(
        title=f"resumed from step {start}: step {found.step} differs from the uninterrupted run in {components_text(found)}",
        rows=tuple(rows(found, evidence)),
        cause=advice.cause or cause,
        fix=advice.fix or fix,
        step=found.step,
        component=found.component,
        checkpoint=checkpoint.identity,
    )


def _what_happened(found: StepDifference, evidence: Evidence, start: int) -> str:
    """Return what the cause goes by: the component that differs first, or what is known beyond that."""
    if found.component == "data" and found.rng_differs and step_of_batches(found, evidence) is None:
        return "drawn data"
    if found.component == "weights" and found.step > start + 1:
        return "weights between updates"
    if found.component == "gradients" and found.step == start + 1 and _lacks_early_batches(found):
        return "early gradients"
    return found.component


def _lacks_early_batches(found: StepDifference) -> bool:
    """Say whether the resumed run did not see batches of the step that came before the save."""
    mine, theirs = (len(batches(step.state.get("data", {}))) for step in (found.found, found.expected))
    return found.expected.early_batches > 0 and mine < theirs


def unseeded(found: StepDifference | str, checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    """Describe a resume that agrees only if its process is seeded as the baseline's was."""
    start = evidence.baseline.step_of(checkpoint)
    what = "the number of its steps" if isinstance(found, str) else components_text(found)
    return Finding(
        title=f"resuming from step {start} depends on the unseeded state of the process when the job is built: {what}",
        rows=() if isinstance(found, str) else tuple(rows(found, evidence)),
        cause="in a process seeded like the first one the resume agrees, in any other it does not: something that is built "
        "with random numbers (data, an order, frozen weights) is neither saved nor seeded.",
        fix="seed before building it, or save it; or accept this with ckpt_resumable(reseed=False).",
        step=None if isinstance(found, str) else found.step,
        component="seed" if isinstance(found, str) else found.component,
        checkpoint=checkpoint.identity,
    )


def failure(run: RunRecord, checkpoint: Checkpoint, evidence: Evidence) -> Finding | None:
    """Describe a resumed run that did not end well; what a job asserts after its last step counts in the baseline only."""
    outcome = run.outcome
    start = evidence.baseline.step_of(checkpoint)
    due = evidence.baseline.last_step - start
    if outcome.ok or (outcome.status == "raised" and _is_late_assertion(run, due)):
        return None
    if due == 0 and not _LOADING.search(outcome.traceback):
        return None  # what a job does after its last step may need one, such as the mean of its losses
    last_lines = tuple(("", line) for line in _plain(outcome.traceback).splitlines()[-8:])
    cause, fix = _why_failed(outcome.message, after_the_last_step=len(run.steps) >= due)
    return Finding(
        title=f"resuming from step {start} {_how(run)} after {len(run.steps)} of {due} steps: {_one_line(outcome.message)}",
        rows=last_lines,
        cause=cause,
        fix=fix,
        step=start + len(run.steps),
        component="runs",
        checkpoint=checkpoint.identity,
    )


def _wrong_count(run: RunRecord, checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    start, last = evidence.baseline.step_of(checkpoint), evidence.baseline.last_step
    executed = len(run.steps)
    advice = evidence.advisor.component("steps", checkpoint)
    return Finding(
        title=f"resumed from step {start}, {executed} steps were trained, expected {last - start} "
        f"(the run ended at step {start + executed} instead of {last})",
        cause=advice.cause or "the end of training is not counted from the step that was restored.",
        fix=advice.fix or "restore the step counter, and stop at the same step as the uninterrupted run.",
        step=start + executed,
        component="steps",
        checkpoint=checkpoint.identity,
    )


def _is_from_scratch(found: StepDifference, run: RunRecord, evidence: Evidence, start: int) -> bool:
    """Say whether the resumed run began like the baseline did: with a new optimizer, and all the steps before it."""
    fresh_optimizer = not run.steps[0].state.get("optimizer")
    had_optimizer = bool(found.expected.state.get("optimizer"))
    repeats = len(run.steps) == evidence.baseline.last_step and start > 0
    weights = "weights" in found.keys and found.step == start + 1
    return weights and repeats and (fresh_optimizer or not had_optimizer)


def _from_scratch(found: StepDifference, run: RunRecord, checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    start, last = evidence.baseline.step_of(checkpoint), evidence.baseline.last_step
    return Finding(
        title=f"resuming from step {start} started from scratch: {len(run.steps)} steps were trained, expected {last - start}",
        rows=tuple(rows(found, evidence)),
        cause="the checkpoint was not loaded, and nothing was said.",
        fix="pass ckpt_job.resume_from on to what loads the checkpoint.",
        step=start + 1,
        component="weights",
        checkpoint=checkpoint.identity,
    )


def _how(run: RunRecord) -> str:
    return {
        "raised": "raised an error",
        "hung": "hung",
        "killed": "was killed",
        "exited": "left the process",
        "skipped": "skipped itself",
    }.get(run.outcome.status, run.outcome.status)


def _is_late_assertion(run: RunRecord, due: int) -> bool:
    return len(run.steps) >= due and run.outcome.message.startswith("AssertionError")


def _plain(text: str) -> str:
    """Return the text without the colours that some libraries put into their errors."""
    return _COLOUR.sub("", text).rstrip()


def _one_line(message: str) -> str:
    """Return the first line of an error's message; torch's go on for many."""
    return next(iter(_plain(message).splitlines()), "").rstrip()


def _why_failed(message: str, *, after_the_last_step: bool) -> tuple[str, str]:
    """Return why a resume ended in an error, and what to do about it."""
    if "weights_only" in message or "WeightsUnpickler" in message:
        return (
            "torch 2.6 and newer load with weights_only=True, which refuses objects that this checkpoint holds.",
            (
                "use a release of the framework that knows of it; where the files are your own, weights_only=False or "
                "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 loads them."
            ),
        )
    if after_the_last_step:
        return (
            "every step was trained; what follows the last one fails in a resumed run, and not in an uninterrupted one.",
            "see in the traceback what the end of training looks for beside this checkpoint, such as an older one.",
        )
    return (
        "the checkpoint can't be loaded by the job that wrote it.",
        "resume from this checkpoint by hand: a real run would stop here as well.",
    )
