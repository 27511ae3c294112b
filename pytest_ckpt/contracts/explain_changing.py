"""Saying that a setting which was changed for a resume was ignored, or why that can't be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.contracts.changing import Plan
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Changes
    from pytest_ckpt.records.run import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen after one step.

    Attributes:
        start: the step that was resumed from.
        before: what the run does that has the old settings.
        wanted: what the run does that has the new ones from the beginning.
        found: what the resumed run does.
    """

    changes: Changes
    checkpoint: Checkpoint
    start: int
    before: Plan
    wanted: Plan
    found: Plan

    def finding(self, title: str, rows: tuple[tuple[str, str], ...], component: str, evidence: Evidence) -> Finding:
        """Return the finding, with what the framework knows about it."""
        advice = evidence.advisor.component("changed", self.checkpoint)
        return Finding(
            title=title,
            rows=rows,
            cause=advice.cause or "what the checkpoint stores of the settings wins over what the resumed run is given.",
            fix=advice.fix
            or "let the settings of the resumed run win, or raise an error where they are not those of the checkpoint.",
            step=self.start,
            component=component,
            checkpoint=self.checkpoint.identity,
        )


def text(changes: Changes) -> str:
    """Return the new settings as they are written in code."""
    return ", ".join(f"{name}={value!r}" for name, value in changes)


def other_saves(seen: Seen, evidence: Evidence) -> Finding:
    """Describe saves that do not follow the change."""
    wanted, before, found = (steps_text(sorted(plan.saved)) for plan in (seen.wanted, seen.before, seen.found))
    if seen.found.saved == seen.before.saved:
        title = f"{_ignored(seen)}: still saved at {found}, as {_first_run(seen.changes, evidence)}"
    else:
        title = f"resumed from step {seen.start} with {text(seen.changes)}, saved at {found}, and not at {wanted}"
    rows = ("a run with the change", wanted), ("the first run", before), ("resumed with it", found)
    return seen.finding(title, rows, "schedule", evidence)


def other_batches(seen: Seen, evidence: Evidence) -> Finding:
    """Describe batches that are not of the size that the change asks for."""
    wanted, before, found = seen.wanted.batch, seen.before.batch, seen.found.batch
    if found == before:
        title = f"{_ignored(seen)}: still trained on batches of {found}, as {_first_run(seen.changes, evidence)}"
    else:
        title = (
            f"resumed from step {seen.start} with {text(seen.changes)}, trained on batches of {found}, not of {wanted}"
        )
    rows = tuple(
        (label, f"batches of {size}")
        for label, size in (("a run with the change", wanted), ("the first run", before), ("resumed with it", found))
    )
    return seen.finding(title, rows, "data", evidence)


def _ignored(seen: Seen) -> str:
    was = "was" if len(seen.changes) == 1 else "were"
    return f"{text(seen.changes)} {was} ignored when training was resumed from step {seen.start}"


def _first_run(changes: Changes, evidence: Evidence) -> str:
    """Name the run without the change, by the value that its framework told of."""
    settings = {name: value for facts in evidence.baseline.frameworks for name, value in facts.settings.items()}
    (name, _), *others = changes
    known = [value for key, value in settings.items() if key == name or key.endswith(f".{name}")]
    return f"with the {known[0]} of the first run" if known and not others else "in the first run"


def not_run(changes: Changes, run: RunRecord | None) -> Finding:
    """Describe a job that can't be run with the change at all."""
    why = "it was not run" if run is None else first_line(run.outcome.message) or run.outcome.status
    return Finding(
        title=f"the whole job with {text(changes)} did not end well, so what the change means can't be seen: {why}",
        fix="choose settings and values with which the job runs from the beginning.",
    )


def no_effect(changes: Changes, run: RunRecord, whole: RunRecord, *, before_only: bool) -> Finding:
    """Describe a change that changes nothing of what is looked at."""
    if "changed" not in whole.asked and not whole.frameworks:
        return Finding(
            title=f"the job did not take the change {text(changes)}: it never read ckpt_job.changed, and no framework took part "
            "that is given it",
            fix="read the setting in the job, such as every = ckpt_job.changed.get('save_every', 4).",
        )
    what = "before the first checkpoint only" if before_only else "nothing"
    return Finding(
        title=f"{text(changes)} changes {what}: the job that has it from the beginning saves at "
        f"{steps_text(whole.saved_steps)}, and without it at {steps_text(run.saved_steps)}",
        cause="what is looked at is which steps are saved, and the size of batches.",
        fix="choose a value with which other steps are saved, after the first checkpoint too; and see that the job takes it: "
        "one that reads ckpt_job.changed has to apply all of it.",
    )


def broken_already(start: int, checkpoint: Checkpoint, plain: RunRecord) -> Finding:
    """Describe a resume that fails without the change, too."""
    return Finding(
        title=f"resuming from step {start} fails without the change as well: {first_line(plain.outcome.message)}",
        fix="ckpt_resumable says what goes wrong there; mend that first.",
        checkpoint=checkpoint.identity,
    )


def no_answer(changes: Changes, start: int, checkpoint: Checkpoint, run: RunRecord) -> Finding:
    """Describe a resume that ended neither well nor with an error."""
    return Finding(
        title=f"resuming from step {start} with {text(changes)} neither ended well nor was refused with an error: "
        f"{first_line(run.outcome.message) or run.outcome.status}",
        fix="run the job by hand with these settings, resumed from this checkpoint.",
        checkpoint=checkpoint.identity,
    )


def first_line(message: str) -> str:
    """Return the first line of an error's message."""
    return next(iter(message.splitlines()), "").rstrip()
