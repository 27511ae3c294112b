"""The contract that saving does not change what is trained, and resuming does not change what was saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pytest_ckpt.contracts.base import OnRequest
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.contracts.resumes import earlier, why_no_resume
from pytest_ckpt.records.experiment import resume
from pytest_ckpt.records.state import keys_that_differ
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Tree


@dataclass(frozen=True)
class Pure(OnRequest):
    """Saving does not change the weights that are trained, and resuming does not change the checkpoint it starts from."""

    name: ClassVar[str] = "pure"

    def plan(self, evidence: Evidence) -> Iterable[Experiment]:
        """Resume from each checkpoint that steps follow."""
        return [resume(checkpoint.identity) for checkpoint in earlier(evidence.baseline)]

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the weights before and after each save, and the files of a checkpoint before and after a resume."""
        run = evidence.baseline
        findings = list(_changed_by_saving(run))
        findings += [found for checkpoint in earlier(run) for found in _changed_by_resuming(evidence, checkpoint)]
        if findings:
            return violated(self.name, *findings)
        undecided = why_no_resume(evidence)
        if undecided is not None:
            return inconclusive(self.name, undecided)
        return held(
            self.name,
            f"saving at {steps_text(run.saved_steps)} changed no weight, and resuming changed no file of a checkpoint",
        )


def _changed_by_saving(run: RunRecord) -> Iterator[Finding]:
    """Yield that weights change between an update and the next step where something is saved, and nowhere else."""
    changed = _changed_between(run)
    saving = {save.step for save in run.saves} | {checkpoint.saved_after for checkpoint in run.written}
    quiet = {step.index for step in run.steps[:-1]} - saving
    of_saves = sorted(step for step in changed if step in saving)
    if not of_saves or not quiet or quiet & set(changed):
        return  # the job itself changes them, such as by clamping, or nothing is there to compare with
    names = changed[of_saves[0]]
    yield Finding(
        title=f"saving changed the model: after the saves at {steps_text(of_saves)} training went on with other weights",
        rows=(
            ("changed", f"{len(names)} parameters, {names[0].split(':', 1)[-1]} first"),
            ("unchanged", f"between the other steps, {steps_text(sorted(quiet))}"),
        ),
        cause="the save puts other weights into the model, such as an average, merged adapters or a cast copy, and leaves "
        "them there.",
        fix="save a copy, or put the trained weights back before the next step.",
        step=of_saves[0] + 1,
        component="weights",
    )


def _changed_between(run: RunRecord) -> Mapping[int, tuple[str, ...]]:
    """Return which weights differ at the start of a step from what the update before left, by the step before."""
    found = {}
    for before, after in zip(run.steps, run.steps[1:], strict=False):
        left, met = before.state.get("update", {}), after.state.get("weights", {})
        both = left.keys() & met.keys()
        names = keys_that_differ({key: left[key] for key in both}, {key: met[key] for key in both})
        if names:
            found[before.index] = tuple(sorted(names))
    return found


def _changed_by_resuming(evidence: Evidence, checkpoint: Checkpoint) -> Iterator[Finding]:
    """Yield that files of the checkpoint have other content after the resume than before, where no save explains it."""
    run = evidence.of(resume(checkpoint.identity))
    if run is None or not run.looks or any(_is_of(checkpoint, save.path) and save.step > 0 for save in run.saves):
        return
    before = _contents(checkpoint, run.looks[0].tree)
    changed = {
        path
        for look in run.looks[1:]
        for path, content in _contents(checkpoint, look.tree).items()
        if before.get(path, content) != content
    }
    if changed:
        start = evidence.baseline.step_of(checkpoint)
        yield Finding(
            title=f"resuming from step {start} changed {', '.join(sorted(changed)[:3])}",
            cause="the job writes into the checkpoint that it loads.",
            fix="write to a file beside the checkpoint: a crash while it is rewritten would cost the checkpoint.",
            step=start,
            component="files",
            checkpoint=checkpoint.identity,
        )


def _is_of(checkpoint: Checkpoint, path: str) -> bool:
    return any(path == own or path.startswith(f"{own}/") for own in (checkpoint.path, *checkpoint.others))


def _contents(checkpoint: Checkpoint, tree: Tree) -> dict[str, str]:
    paths = (checkpoint.path, *checkpoint.others)
    return {entry.path: entry.content for path in paths for entry in tree.files_under(path)}
