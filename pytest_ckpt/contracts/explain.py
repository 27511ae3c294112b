"""Saying what a difference between a resumed and an uninterrupted run means, so that the reader need not debug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.saving import steps_text
from pytest_ckpt.contracts.trajectory import LAST_BITS, StepDifference, batches
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.state import Reading

#: Rows of the table of a difference: component, its title, what it says if it agrees.
_ROWS: Final = (
    ("data", "data", "same batches"),
    ("weights", "weights", "same"),
    ("buffers", "buffers", "same"),
    ("optimizer", "optimizer", "same state"),
    ("param_groups", "settings", "same"),
    ("lr", "lr", "same"),
    ("scheduler", "scheduler", "same"),
    ("scaler", "scaler", "same"),
    ("ema", "average", "same"),
    ("counter", "counter", "same"),
    ("rng", "rng", "same"),
    ("gradients", "gradients", "same"),
    ("update", "update", "same"),
)
_ALWAYS: Final = frozenset({"data", "weights", "optimizer", "lr"})
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
_GENERATORS: Final = {"torch": "torch", "cuda": "CUDA", "numpy": "numpy", "python": "Python"}


def difference(found: StepDifference | str, run: RunRecord, checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    """Describe how a resumed run differs."""
    if isinstance(found, str):
        return _wrong_count(run, checkpoint, evidence)
    start = evidence.baseline.step_of(checkpoint)
    if _is_from_scratch(found, run, evidence, start):
        return _from_scratch(found, run, checkpoint, evidence)
    advice = evidence.advisor.component(found.component, checkpoint)
    drawn = found.component == "data" and found.rng_differs and _step_of_batches(found, evidence) is None
    cause, fix = _CAUSES["drawn data" if drawn else found.component]
    return Finding(
        title=f"resumed from step {start}: step {found.step} differs from the uninterrupted run in {_component(found)}",
        rows=tuple(_rows(found, evidence)),
        cause=advice.cause or cause,
        fix=advice.fix or fix,
        step=found.step,
        component=found.component,
        checkpoint=checkpoint.identity,
    )


def unseeded(found: StepDifference | str, checkpoint: Checkpoint, evidence: Evidence) -> Finding:
    """Describe a resume that agrees only if its process is seeded as the baseline's was."""
    start = evidence.baseline.step_of(checkpoint)
    what = "the number of its steps" if isinstance(found, str) else _component(found)
    return Finding(
        title=f"resuming from step {start} depends on the unseeded state of the process when the job is built: {what}",
        rows=() if isinstance(found, str) else tuple(_rows(found, evidence)),
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
        rows=tuple(_rows(found, None)),
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
        where = f"differs from itself at step {found.step} in {_component(found)}"
    return Finding(
        title=f"the job is not reproducible: run twice from equal seeds it {where}",
        rows=() if found is None else tuple(_rows(found, None)),
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
        rows=tuple(_rows(found, evidence)),
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


def _component(found: StepDifference) -> str:
    roots = [name for name in found.keys if name not in {"gradients", "update"}] or [found.component]
    titles = {name: title for name, title, _ in _ROWS}
    return ", ".join(titles.get(name, name) for name in roots)


def _rows(found: StepDifference, evidence: Evidence | None) -> Iterable[tuple[str, str]]:
    """Yield a row for each component that differs or that every reader asks for."""
    first = found.component
    for name, title, same in _ROWS:
        if name == "rng":
            differing = found.rng_differs if first == "rng" or "data" in found.keys else ()
        else:
            differing = found.keys.get(name, ())
        if differing:
            mark = "   <- first difference" if name == first else ""
            yield title, _describe(name, differing, found, evidence) + mark
        elif name in _ALWAYS and (found.expected.state.get(name) or found.found.state.get(name)):
            yield title, same


def _describe(name: str, keys: Sequence[str], found: StepDifference, evidence: Evidence | None) -> str:
    expected, actual = found.expected.state.get(name, {}), found.found.state.get(name, {})
    match name:
        case "data":
            return _describe_data(found, evidence)
        case "counter":
            return f"step {found.found.claimed}, uninterrupted {found.expected.claimed}"
        case "rng":
            names = sorted({_GENERATORS[key.split(":", 1)[0]] for key in keys})
            return f"state of {' and '.join(names)} differs"
        case "optimizer":
            return _describe_optimizer(keys, expected, actual)
        case "lr" | "param_groups" | "scheduler" | "scaler":
            return _describe_scalars(keys, expected, actual)
        case _:
            return _describe_tensors(keys, expected, actual)


def _step_of_batches(found: StepDifference, evidence: Evidence | None) -> int | None:
    """Return the step of the uninterrupted run that had the batches which the resumed run has now."""
    mine = batches(found.found.state.get("data", {}))
    steps = evidence.baseline.steps if evidence is not None and mine else ()
    return next((step.index for step in steps if batches(step.state.get("data", {})) == mine), None)


def _describe_data(found: StepDifference, evidence: Evidence | None) -> str:
    mine, theirs = (batches(step.state.get("data", {})) for step in (found.found, found.expected))
    if not mine:
        return "no batch was seen"
    step = _step_of_batches(found, evidence)
    if step is not None:
        return f"other batches: those of step {step} of the uninterrupted run"
    if len(mine) != len(theirs):
        return f"{len(mine)} batches, uninterrupted {len(theirs)}"
    expected, actual = found.expected.batch_shapes, found.found.batch_shapes
    return (
        f"other batches: shapes {actual[:1]}, uninterrupted {expected[:1]}" if expected != actual else "other batches"
    )


def _describe_optimizer(keys: Sequence[str], expected: Mapping[str, Reading], actual: Mapping[str, Reading]) -> str:
    """Say which entries of how many parameters differ, and whether they are gone, zero or other."""
    entries = sorted({key.rpartition("/")[2] for key in keys if (expected.get(key) or actual[key]).shape is not None})
    entries = entries or sorted({key.rpartition("/")[2] for key in keys})
    parameters = {key.rpartition("/")[0] for key in keys}
    everything = {key.rpartition("/")[0] for key in (*expected, *actual)}
    norm = _total([expected[key] for key in keys if key in expected])
    found = [actual[key] for key in keys if key in actual]
    how = "are absent" if not found else "are zero" if _total(found) == 0 else f"differ (norm {_total(found):.1e}"
    close = f", saved norm {norm:.1e})" if how.startswith("differ") else f" (saved norm {norm:.1e})"
    return f"{', '.join(entries[:4])} of {len(parameters)} of {len(everything)} parameters {how}{close}"


def _describe_scalars(keys: Sequence[str], expected: Mapping[str, Reading], actual: Mapping[str, Reading]) -> str:
    texts = []
    for key in keys[:2]:
        label = "" if key in {"group0", "0/scale"} else f"{key.split(':', 1)[-1]} "
        texts.append(f"{label}{_value(actual.get(key))}, uninterrupted {_value(expected.get(key))}")
    more = f" (and {len(keys) - 2} more)" if len(keys) > 2 else ""  # noqa: PLR2004
    return "; ".join(texts) + more


def _describe_tensors(keys: Sequence[str], expected: Mapping[str, Reading], actual: Mapping[str, Reading]) -> str:
    total = len({*expected, *actual})
    key = max(keys, key=lambda key: abs(_norm(expected.get(key)) - _norm(actual.get(key))))
    name = key.split(":", 1)[-1]
    return (
        f"{len(keys)} of {total} differ, most in norm {name}: {_value(actual.get(key))}, "
        f"uninterrupted {_value(expected.get(key))}"
    )


def _value(reading: Reading | None) -> str:
    if reading is None:
        return "absent"
    if reading.norm is not None:
        return f"{reading.norm:.4g}"
    try:
        return f"{float(reading.digest):.4g}"
    except ValueError:
        return reading.digest[:8] or "unreadable"


def _norm(reading: Reading | None) -> float:
    return 0.0 if reading is None or reading.norm is None else reading.norm


def _total(readings: Iterable[Reading]) -> float:
    return float(sum(_norm(reading) ** 2 for reading in readings) ** 0.5)
