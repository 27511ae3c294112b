"""Saying what a difference between a resumed and an uninterrupted run means, so that the reader need not debug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.difference_rows import components_text, rows, step_of_batches
from pytest_ckpt.contracts.saving import steps_text
from pytest_ckpt.contracts.trajectory import LAST_BITS, StepDifference
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

_CAUSES: Final = {
    "data": (
        "the position in the data is not restored: other batches follow than in the uninterrupted run.",
        "save and restore the sampler's or the data loader's state, or skip the batches already seen in the same order.",
    ),
    "drawn data": (
        "the state of the random generators is not restored, and the batches, their order or augmentation, are drawn from it.",
        "save the states of all random generators in use and restore them right before training goes on.",
    ),
    "weights": ("the weights are not those that were saved.", "load the model's state dict before training goes on."),
    "buffers": (
        "buffers of the model, such as running statistics, are not restored.",
        "save and load the whole state dict of the model, buffers included.",
    ),
    "optimizer": ("the optimizer's state is not restored.", "save optimizer.state_dict() and load it on resume."),
    "param_groups": (
        "settings of the optimizer's parameter groups are not restored.",
        "load the optimizer's state dict after it was built, and do not overwrite its groups.",
    ),
    "lr": (
        "the learning rate is not continued: the scheduler's state is not restored.",
        "save scheduler.state_dict() and load it on resume, after the optimizer's.",
    ),
    "scheduler": ("the scheduler does not stand where it stood.", "save scheduler.state_dict() and load it on resume."),
    "scaler": ("the gradient scaler starts anew.", "save scaler.state_dict() and load it on resume."),
    "ema": (
        "the averaged weights (EMA) are not restored.",
        "save the average and load it on resume, not only the model.",
    ),
    "counter": ("the step counter is not restored.", "save the step and continue counting from it."),
    "rng": (
        (
            "the random generators are in another state: not restored, or drawn from after that (a DataLoader draws a seed each "
            "time it is iterated). So dropout, augmentation or noise draw other numbers."
        ),
        "save the states of all random generators in use and restore them right before training goes on.",
    ),
    "gradients": (
        (
            "the same weights, data and random state led to other gradients: state outside of what was compared, such as "
            "an attribute of the model or of the loss, is not restored."
        ),
        "look for state that lives in Python attributes and is not part of a state dict.",
    ),
    "update": (
        "the same gradients led to other weights: state of the optimizer or of a hook on it is not restored.",
        "look for state of the update that is not in the optimizer's state dict.",
    ),
}
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
    advice = evidence.advisor.component(found.component, checkpoint)
    drawn = found.component == "data" and found.rng_differs and step_of_batches(found, evidence) is None
    cause, fix = _CAUSES["drawn data" if drawn else found.component]
    return Finding(
        title=f"resumed from step {start}: step {found.step} differs from the uninterrupted run in {components_text(found)}",
        rows=tuple(rows(found, evidence)),
        cause=advice.cause or cause,
        fix=advice.fix or fix,
        step=found.step,
        component=found.component,
        checkpoint=checkpoint.identity,
    )


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


def rounding(found: StepDifference, checkpoint: Checkpoint) -> Finding:
    """Describe a resumed run that differs in the last bits of what it computes, from the same state and data."""
    return Finding(
        title=f"after resuming from {checkpoint.path}, step {found.step} differs from the uninterrupted run in the last bits "
        f"of its {found.component} only, by less than {LAST_BITS:.0e} of their norms",
        rows=tuple(rows(found, None)),
        cause="all that was restored agrees; another kernel computed with it: one that is chosen or fused after a warm-up "
        "(torch.jit, autotuning), or one whose order of summation is not fixed.",
        fix="allow for it by name, ckpt_resumable(tolerance=1e-5), or switch the warm-up off.",
        step=found.step,
        component=found.component,
        checkpoint=checkpoint.identity,
    )


def not_reproducible(found: StepDifference | None, repeated: RunRecord, baseline: RunRecord) -> Finding:
    """Describe a job that differs from itself."""
    if found is None:
        where = f"trained {len(repeated.steps)} steps, then {baseline.last_step}"
    else:
        where = f"differs from itself at step {found.step} in {components_text(found)}"
    return Finding(
        title=f"the job is not reproducible: run twice from equal seeds it {where}",
        rows=() if found is None else tuple(rows(found, None)),
        cause="something in it is random beyond the seeds of torch, numpy and Python: time, threads, hashes, a device's kernels.",
        fix="make the job deterministic (torch.use_deterministic_algorithms, seeded workers), or ask for a lower level: "
        "ckpt_resumable('state').",
        step=None if found is None else found.step,
    )


def no_such_steps(steps: Sequence[int], run: RunRecord) -> Finding:
    """Describe a marker that names steps which were not saved."""
    return Finding(
        title=f"no checkpoint was saved at {steps_text(steps)}; this job saved at {steps_text(run.saved_steps)}",
        fix="name steps that are saved.",
    )


def only_last_step(run: RunRecord) -> Finding:
    """Describe a job whose only checkpoint leaves nothing to train."""
    return Finding(
        title=f"every checkpoint is of the last step, {run.last_step}: a resume trains nothing that could be compared",
        cause="the job saves only when it ends.",
        fix="save at least once earlier in the test, so that steps follow the checkpoint.",
    )


def ignores_resume_from() -> Finding:
    """Describe a job that never asks where to resume from."""
    return Finding(
        title="the job never read ckpt_job.resume_from",
        cause="each experiment started from the beginning, so nothing was resumed.",
        fix="pass ckpt_job.resume_from to the training code, such as trainer.train(resume_from_checkpoint=ckpt_job.resume_from), "
        "or call ckpt_job.train(trainer).",
    )


def blind(checkpoint: Checkpoint) -> Finding:
    """Describe a check that would not see a broken resume."""
    return Finding(
        title=f"the check is blind here: resuming from a damaged copy of {checkpoint.path} showed no difference either",
        cause="what a resume reads is not what is in this checkpoint, or training does not change anything (lr 0, frozen model).",
        fix="let the job train something that the checkpoint restores.",
        checkpoint=checkpoint.identity,
    )


def unreadable(reasons: Mapping[str, str]) -> Finding:
    """Describe state that the probe could not read."""
    return Finding(
        title=f"could not be read and so not be compared: {', '.join(reasons)}",
        rows=tuple(reasons.items()),
        fix="ask for a level that does not need it, such as ckpt_resumable('runs').",
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
