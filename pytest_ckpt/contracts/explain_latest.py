"""Saying which checkpoint a restart took, which it should have taken, and why that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.contracts import undecidable
from pytest_ckpt.contracts.base import promised
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import no_steps, steps_text
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.restarts import Restarted, Scene
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.experiment import Damage
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.verdict import Advice


def does_not_search(newest: Checkpoint) -> Finding:
    """Describe a job that starts from the beginning, whatever it finds."""
    return Finding(
        title=f"the job does not search for a checkpoint: started again beside {newest.path} it began from scratch",
        cause="it reads neither ckpt_job.restarting nor calls ckpt_job.train(trainer), so nothing told it to search.",
        fix="where ckpt_job.restarting is true, let the job find the newest checkpoint in ckpt_job.dir as it does after a "
        "crash; or start its trainer by ckpt_job.train(trainer).",
        checkpoint=newest.identity,
    )


def wrong_choice(found: Restarted, scene: Scene, run: RunRecord, advisor: Advisor) -> Finding:
    """Describe a restart that does not go on from the newest checkpoint though that is whole."""
    advice = advisor.component("latest", scene.newest)
    last_lines = tuple(("", line) for line in run.outcome.traceback.rstrip().splitlines()[-6:])
    return Finding(
        title=_choice(found, scene),
        rows=(*_beside(scene), *(last_lines if found.way == "refused" else ())),
        cause=_why_chosen(found, scene) or advice.cause,
        fix="save the weights under the names that the model has when it is loaded."
        if found.way == "elsewhere" and found.step == 0
        else advice.fix or "search where the job saves, by the names under which it saves, and take the highest step.",
        step=scene.step + 1,
        component="weights",
        checkpoint=scene.newest.identity,
    )


def _choice(found: Restarted, scene: Scene) -> str:
    """Say in a sentence where a restart went on from."""
    newest, lost = scene.newest.path, scene.step - (found.step or 0)
    if scene.incomplete and found.way in {"refused", "elsewhere"}:
        what = "fails at" if found.way == "refused" else "went on from"
        why = f": {found.message}" if found.way == "refused" else ", and said nothing"
        return f"a restart {what} {newest}, which is incomplete, though step {scene.step} is there whole{why}"
    return {
        "newest": f"a restart went on from {newest}",
        "refused": f"a restart fails beside {newest}, which is whole: {found.message}",
        "scratch": f"a restart began from scratch beside {newest}: {scene.step} steps are lost, and nothing was said",
        "older": f"a restart went on from step {found.step}, not from {newest}, the newest: {lost} steps are lost",
        "idle": f"a restart beside {newest} ended at once, without training and without an error",
        "elsewhere": f"a restart took {newest} and went on with the weights of a new model"
        if found.step == 0
        else f"a restart beside {newest} went on with weights of no step that this run saved",
    }[found.way]


def _beside(scene: Scene) -> Iterator[tuple[str, str]]:
    """Yield what lay in the directory."""
    yield "newest", f"{scene.newest.path}, " + ("incomplete" if scene.incomplete else f"step {scene.step}")
    if scene.incomplete:
        yield "newest whole", f"step {scene.step}"
    yield "older", steps_text(scene.older) if scene.older else "none"
    if scene.foreign:
        yield "of another run", ", ".join(scene.foreign)


def _why_chosen(found: Restarted, scene: Scene) -> str:
    match found.way:
        case "older":
            return "the search orders the checkpoints otherwise than they were saved, as by the letters of their names."
        case "elsewhere" | "refused" if scene.incomplete:
            return "the search takes the newest name and looks neither for missing files nor for a mark that it is unfinished."
        case "elsewhere" if scene.foreign:
            return f"what another run has left is taken for this run's: {', '.join(scene.foreign)}."
        case "elsewhere" if found.step == 0:
            return "the step was restored and the weights were not; ckpt_resumable and ckpt_loadable say why."
        case "scratch" | "refused":
            return "the search does not find what this job saves, by its place or by its name."
    return ""


def nothing_to_find(run: RunRecord) -> Finding:
    """Describe a job that leaves no checkpoint from which there is something left to train."""
    if run.last_step == 0:
        return no_steps()
    own = [checkpoint for checkpoint in promised(run) if not checkpoint.foreign]
    if not own:
        return nothing_saved(run)
    if all(run.step_of(checkpoint) == run.last_step for checkpoint in own):
        return undecidable.only_last_step(run)
    return _nothing_whole(own)


def _nothing_whole(checkpoints: Sequence[Checkpoint]) -> Finding:
    """Describe a job of whose checkpoints none can be resumed from."""
    return Finding(
        title=f"none of the {len(checkpoints)} checkpoints is whole, so a restart has nothing to find",
        fix="ckpt_complete says what is missing.",
    )


def passes_over(found: Restarted, scene: Scene) -> str:
    """Return the sentence of a job that does not take what is incomplete."""
    did = f"goes on from step {found.step}" if found.way == "newest" else "refuses it"
    return f"{scene.newest.path}, the newest, is incomplete, and a restart {did}"


def restarts_differ(scene: Scene) -> Finding:
    """Describe a job that does not restart twice in the same way."""
    return Finding(
        title=f"two restarts from {scene.newest.path} with equal seeds differ from each other in their first step",
        cause="something in the job is random beyond the seeds of torch, numpy and Python, so what a damage does can't be told.",
        fix="make the job deterministic, or look at the choice alone: ckpt_latest(damaged=False).",
        checkpoint=scene.newest.identity,
    )


def took_stale(damage: Damage, found: Restarted, scene: Scene) -> Finding:
    """Describe a restart that took the checkpoint of another run for its own."""
    return Finding(
        title=f"a restart took {damage.target}, which another run left 30 days before, for the newest: it went on "
        f"{went_on(found)}, not from {scene.newest.path}",
        cause="checkpoints are ordered by the number in their names alone.",
        fix="give each run a directory of its own, or let a new run refuse one that holds checkpoints.",
        step=scene.step + 1,
        component="weights",
        checkpoint=scene.newest.identity,
    )


def by_letters(damage: Damage, found: Restarted, scene: Scene) -> Finding:
    """Describe a search that sorts names as text."""
    new = damage.target.rpartition("/")[2]
    return Finding(
        title=f"with {scene.newest.path} named {new} a restart took step {found.step} for the newest and passed over "
        f"step {scene.step}",
        cause=f"names are sorted as text, in which {new} comes before names with a number of fewer digits.",
        fix="sort by the number in the name, or pad the numbers with zeros.",
        step=scene.step + 1,
        component="weights",
        checkpoint=scene.newest.identity,
    )


def path_ignored(found: Restarted, scene: Scene) -> Finding:
    """Describe a job that was told to resume from what is not there."""
    return Finding(
        title=f"told to resume from {scene.newest.path}, which is not there, the job "
        + ("ended without an error" if found.way == "idle" else f"went on {went_on(found)} and said nothing"),
        cause="a path that does not exist counts as none.",
        fix="end with an error where the checkpoint that was asked for is missing: a typing error must not cost the run.",
        step=1,
        component="weights",
        checkpoint=scene.newest.identity,
    )


def trains_on(found: Restarted, scene: Scene, advice: Advice) -> Finding:
    """Describe a finished run that does not end when it is started again."""
    where = "from scratch" if found.way == "scratch" else f"after step {scene.step}, the last"
    return Finding(
        title=f"started again after its end, beside {scene.newest.path}, the job went on training {where}",
        cause=advice.cause or "whether the run has ended is not looked at before the first step.",
        fix=advice.fix or "compare the restored step with the last one before training, and end there.",
        step=scene.step,
        component="steps",
        checkpoint=scene.newest.identity,
    )


def went_on(found: Restarted) -> str:
    """Say from where a restart went on."""
    if found.way == "scratch":
        return "from scratch"
    return "with weights of no step that was saved" if found.step is None else f"from step {found.step}"
