"""The contract that a resumed run saves where the uninterrupted one would have."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.changing import Changed
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.contracts.resumes import earlier, saved_steps, why_no_resume
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import resume
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Changes, Experiment


@dataclass(frozen=True)
class StableSchedule(OnRequest):
    """After a resume the same steps are saved as without the interruption, and none that lies before it again.

    With `change`, new values of settings by name, another promise is checked: a resume with these values saves, and cuts its
    batches, as they say, or is refused with an error; they are never ignored.
    """

    name: ClassVar[str] = "stable_schedule"
    _: KW_ONLY
    change: Mapping[str, str | int | float | bool | None] | None = None

    def __post_init__(self) -> None:
        change: object = self.change
        if change is not None and not (isinstance(change, dict) and change and all(map(_is_setting, change.items()))):
            message = "change must map names of settings to new plain values, such as {'save_steps': 2}; got " + repr(
                change
            )
            raise InvalidArgument(message)

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Resume from each checkpoint that steps follow; what a change means is seen in a run that has it from the start."""
        if self.change is not None:
            return Changed(evidence, self._changes).plan()
        return [resume(checkpoint.identity) for checkpoint in earlier(evidence.baseline)]

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare what each resumed run saved with what the uninterrupted one saved after the same step."""
        if self.change is not None:
            return Changed(evidence, self._changes).judge(self.name)
        undecided = why_no_resume(evidence)
        if undecided is not None:
            return inconclusive(self.name, undecided)
        chosen = earlier(evidence.baseline)
        findings = [finding for checkpoint in chosen for finding in _deviations(evidence, checkpoint)]
        if findings:
            return violated(self.name, *findings)
        failed = [finding for checkpoint in chosen if (finding := _failed(evidence, checkpoint)) is not None]
        if failed:
            return inconclusive(self.name, *failed)
        starts = steps_text(evidence.baseline.step_of(checkpoint) for checkpoint in chosen)
        return held(self.name, f"resumed from {starts}, the same steps are saved as without the interruption")

    @property
    def _changes(self) -> Changes:
        return tuple((self.change or {}).items())


def _is_setting(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and bool(name) and (value is None or isinstance(value, (str, int, float)))


def _deviations(evidence: Evidence, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Yield in what the saves after a resume differ; nothing of a run that failed."""
    run, baseline = evidence.of(resume(checkpoint.identity)), evidence.baseline
    if run is None or not run.outcome.ok:
        return
    start = baseline.step_of(checkpoint)
    expected, found = saved_steps(baseline, after=start, offset=0), saved_steps(run, after=-1, offset=start)
    again = sorted(step for step in found if step <= start)
    missing, unexpected = sorted(expected - found), sorted(found - expected - set(again))
    if missing or unexpected or again:
        yield _finding(checkpoint, start, expected, found, missing, unexpected, again)


def _finding(  # noqa: PLR0913, PLR0917 - the parts of the comparison
    checkpoint: Checkpoint,
    start: int,
    expected: frozenset[int],
    found: frozenset[int],
    missing: list[int],
    unexpected: list[int],
    again: list[int],
) -> Finding:
    parts = [
        f"{what} {steps_text(steps)}"
        for what, steps in (("missing", missing), ("unexpected", unexpected), ("saved again", again))
        if steps
    ]
    return Finding(
        title=f"resumed from step {start}, other steps are saved than without the interruption: {'; '.join(parts)}",
        rows=(("uninterrupted", steps_text(sorted(expected))), ("resumed", steps_text(sorted(found)))),
        cause="the interval is counted from the step that was resumed from, not from the beginning of the run."
        if missing and unexpected
        else "what was resumed from is written once more."
        if again and not missing and not unexpected
        else "the settings of the resumed run, or what it restores of them, differ from those of the first.",
        fix="restore the step counter before the first save is decided, and save by that counter.",
        step=min([*missing, *unexpected, *again]),
        component="schedule",
        checkpoint=checkpoint.identity,
    )


def _failed(evidence: Evidence, checkpoint: Checkpoint) -> Finding | None:
    run = evidence.of(resume(checkpoint.identity))
    if run is None or run.outcome.ok:
        return None
    start = evidence.baseline.step_of(checkpoint)
    return Finding(
        title=f"resuming from step {start} did not end well, so its saves can't be compared: {run.outcome.message}",
        fix="ckpt_resumable says what goes wrong there.",
        checkpoint=checkpoint.identity,
    )
