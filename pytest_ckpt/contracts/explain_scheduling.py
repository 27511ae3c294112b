"""Saying which saves are missing, unexpected or made twice, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.contracts.explain_saving import saved_elsewhere, some_of, steps_text
from pytest_ckpt.records.verdict import Advice, Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.repeated_saves import Repeated
    from pytest_ckpt.records.run import RunRecord


def other_steps(
    expected: Collection[int], missing: Sequence[int], unexpected: Sequence[int], evidence: Evidence
) -> Finding:
    """Describe saves that are not those expected."""
    run = evidence.baseline
    advice = _advice(missing, evidence)
    rows = [("expected", steps_text(sorted(expected))), ("saved at", steps_text(run.saved_steps))]
    rows += [("missing", steps_text(missing))] if missing else []
    rows += [("unexpected", steps_text(unexpected))] if unexpected else []
    return Finding(
        title=_title(len(expected), missing, unexpected),
        rows=tuple(rows),
        cause=advice.cause or _cause(missing, unexpected, run),
        fix=advice.fix or _fix(missing, unexpected, run),
        step=min((*missing, *unexpected)),
        component="steps",
    )


def _title(expected: int, missing: Sequence[int], unexpected: Sequence[int]) -> str:
    lacks = f"{len(missing)} of {expected} expected saves {_was(missing)} not made ({_named(missing)})"
    extra = f"{len(unexpected)} {_was(unexpected)} made unexpectedly ({_named(unexpected)})"
    if not missing:
        return f"{expected} {'save was' if expected == 1 else 'saves were'} expected, and {extra}"
    return f"{lacks}, and {extra}" if unexpected else lacks


def _named(steps: Sequence[int]) -> str:
    return f"{'step' if len(steps) == 1 else 'steps'} {some_of(steps)}"


def _was(steps: Sequence[int]) -> str:
    return "was" if len(steps) == 1 else "were"


def _advice(missing: Sequence[int], evidence: Evidence) -> Advice:
    """Ask the framework about saves that were not made; about a last one alone it knows more."""
    run = evidence.baseline
    if not missing or not run.written:
        return Advice()
    if list(missing) == [run.last_step]:
        return evidence.advisor.missing_final()
    return evidence.advisor.component("count", run.written[-1])


def _cause(missing: Sequence[int], unexpected: Sequence[int], run: RunRecord) -> str:
    if missing and [step - 1 for step in missing] == list(unexpected):
        return (
            "each save comes one step early: it is made before the optimizer's update, or the loop counts steps from 0."
        )
    if missing and [step + 1 for step in missing] == list(unexpected):
        return (
            "each save comes one step late: after the next update, or the loop counts steps from 1 and saves at N + 1."
        )
    if missing and max(missing) > run.last_step:
        return f"training ended at step {run.last_step}."
    if list(missing) == [run.last_step] and run.written:
        return "the interval does not reach the last step, and nothing is saved when training has ended."
    if missing:
        return saved_elsewhere(run) or "a save was skipped, or the interval counts something else than optimizer steps."
    return "there is a second place that saves: an interval of another kind, a callback, or the end of an epoch."


def _fix(missing: Sequence[int], unexpected: Sequence[int], run: RunRecord) -> str:
    if missing and run.strays and not run.written:
        return "build the paths of checkpoints from ckpt_job.dir."
    if list(missing) == [run.last_step] and not unexpected:
        return "save once more when training has ended, after the last step."
    if missing:
        return "save after the update of these steps, counted in optimizer steps; or ask for the steps that are meant."
    return "remove the save that is not meant, or list its steps in ckpt_steps([...])."


def twice(found: Iterable[Repeated]) -> Iterator[Finding]:
    """Describe steps that were saved more than once."""
    for one in found:
        again = len(one.paths) == 1
        how = f"{one.paths[0]} was written {one.times} times" if again else f"in {' and '.join(one.paths)}"
        yield Finding(
            title=f"step {one.step} was saved {_times(one.times)}: {how}" + (" after it" if again else ""),
            cause="two places save, such as an interval and the end of training, and both are due at this step; "
            + (
                "the second write destroys a good checkpoint before it has made one."
                if again
                else "one number is wrong."
            ),
            fix="remember the step that was saved last, and skip the second save.",
            step=one.step,
            component="steps",
            checkpoint=one.checkpoint,
        )


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"  # noqa: PLR2004 - the word for it
