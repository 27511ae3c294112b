"""What a contract can say of a rehearsal: only what the schedule decides, and nothing where a stand-in was not enough."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_ckpt.contracts.base import OfSchedule
from pytest_ckpt.records.verdict import Finding, Verdict, inconclusive, not_applicable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_ckpt.contracts.base import Contract, Evidence
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.rehearsal import Rehearsal
    from pytest_ckpt.records.run import RunRecord


def planned(contract: Contract, evidence: Evidence) -> Iterable[Experiment]:
    """Return the experiments that a contract needs; of a rehearsal none but itself."""
    return contract.plan(evidence) if evidence.baseline.rehearsal is None else ()


def verdict(contract: Contract, evidence: Evidence) -> Verdict:
    """Return the verdict of a contract, and say of a rehearsal what was replaced in it."""
    run = evidence.baseline
    if run.rehearsal is None:
        return contract.judge(evidence)
    if not isinstance(contract, OfSchedule):
        return not_applicable(
            contract.name, "the schedule was rehearsed: checkpoints of a stand-in say nothing of what real ones hold"
        )
    if run.rehearsal.reached:
        return inconclusive(contract.name, _reached(run.rehearsal, run))
    found = contract.judge(evidence)
    export = _unknown_export(run)
    if export and found.status == "violated":
        return inconclusive(contract.name, _saved_by_job(export, run))
    return replace(found, notes=(*found.notes, *_notes(run.rehearsal)))


def _notes(rehearsal: Rehearsal) -> Iterable[str]:
    yield f"rehearsed with stand-ins for {', '.join(rehearsal.replaced)}; all else was the real loop"
    if rehearsal.origin:
        yield f"the schedule is that of {rehearsal.origin}"
    if rehearsal.metric:
        yield f"evaluations answered: {rehearsal.metric}"
    if rehearsal.seconds_per_step:
        yield f"each step took {rehearsal.seconds_per_step:g} s on a fake clock"
    if rehearsal.world_size > 1:
        yield f"the schedule is that of {rehearsal.world_size} processes, of which one was run"


def _reached(rehearsal: Rehearsal, run: RunRecord) -> Finding:
    others = rehearsal.reached[1:]
    return Finding(
        title=f"the rehearsal met code that needs the real model or data: {rehearsal.reached[0]}",
        rows=(("rehearsed", f"{run.last_step} steps until the end"), *(("also", other) for other in others)),
        cause="a rehearsal runs the loop with a stand-in for the model, the optimizer and the batches; what this code makes of "
        "them may decide what is saved, and would be another thing in the real run.",
        fix="train it, with ckpt_job.train(trainer, max_steps=...) and a tiny model; or rehearse without that code.",
    )


def _unknown_export(run: RunRecord) -> str:
    """Return what the job saved by itself after the last step: the model that it has is not the one that was rehearsed."""
    known = {path for checkpoint in run.checkpoints for path in checkpoint.files}
    mine = [save.path for save in run.saves if save.step == run.last_step > 0 and save.path not in known]
    return mine[-1] if mine else ""


def _saved_by_job(path: str, run: RunRecord) -> Finding:
    return Finding(
        title=f"the job saved {path} after the last step, {run.last_step}, and a rehearsal can't tell what would be in it",
        cause="the job saves a model that it holds itself; a rehearsal trains a stand-in and leaves that model as it was.",
        fix="save trainer.model, which is the stand-in in a rehearsal; or train the job, with a tiny model.",
        step=run.last_step,
    )
