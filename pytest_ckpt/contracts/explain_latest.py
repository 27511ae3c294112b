"""Saying which checkpoint a restart took, which it should have taken, and why that matters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.difference_rows import components_text
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.restarts import Restarted, Scene
    from pytest_ckpt.records.experiment import Damage
    from pytest_ckpt.records.run import RunRecord

#: How many rows of one kind a finding shows.
_SHOWN: Final = 8


def does_not_search(scene: Scene) -> Finding:
    """Describe a job that starts from the beginning, whatever it finds."""
    return Finding(
        title=f"the job does not search for a checkpoint: started again beside {scene.newest.path} it began from scratch",
        cause="it reads neither ckpt_job.restarting nor calls ckpt_job.train(trainer), so nothing told it to search.",
        fix="where ckpt_job.restarting is true, let the job find the newest checkpoint in ckpt_job.dir as it does after a "
        "crash; or start its trainer by ckpt_job.train(trainer).",
        checkpoint=scene.newest.identity,
    )


def wrong_choice(found: Restarted, scene: Scene, run: RunRecord, advisor: Advisor) -> Finding:
    """Describe a restart that does not go on from the newest checkpoint though that is whole."""
    lost = scene.step - (found.step or 0)
    newest = scene.newest.path
    title = {
        "refused": f"a restart fails beside {newest}, which is whole: {found.message}",
        "scratch": f"a restart began from scratch beside {newest}: {scene.step} steps are lost, and nothing was said",
        "older": f"a restart went on from step {found.step}, not from {newest}, the newest: {lost} steps are lost",
        "idle": f"a restart beside {newest} ended at once, without training and without an error",
        "elsewhere": f"a restart beside {newest} went on with weights of no step that this run saved",
    }[found.way]
    advice = advisor.component("latest", scene.newest)
    last_lines = tuple(("", line) for line in run.outcome.traceback.rstrip().splitlines()[-6:])
    return Finding(
        title=title,
        rows=(*_beside(scene), *(last_lines if found.way == "refused" else ())),
        cause=_why_chosen(found, scene) or advice.cause,
        fix=advice.fix or "search where the job saves, by the names under which it saves, and take the highest step.",
        step=scene.step + 1,
        component="weights",
        checkpoint=scene.newest.identity,
    )


def _beside(scene: Scene) -> Iterator[tuple[str, str]]:
    """Yield what lay in the directory."""
    yield "newest", f"{scene.newest.path}, step {scene.step}"
    yield "older", steps_text(scene.older) if scene.older else "none"
    if scene.foreign:
        yield "of another run", ", ".join(scene.foreign)


def _why_chosen(found: Restarted, scene: Scene) -> str:
    match found.way:
        case "older":
            return "the search orders the checkpoints otherwise than they were saved, as by the letters of their names."
        case "elsewhere" if scene.foreign:
            return f"what another run has left is taken for this run's: {', '.join(scene.foreign)}."
        case "scratch" | "refused":
            return "the search does not find what this job saves, by its place or by its name."
    return ""


def restarts_differ(scene: Scene) -> Finding:
    """Describe a job that does not restart twice in the same way."""
    return Finding(
        title=f"two restarts from {scene.newest.path} with equal seeds differ from each other in their first step",
        cause="something in the job is random beyond the seeds of torch, numpy and Python, so what a damage does can't be told.",
        fix="make the job deterministic, or look at the choice alone: ckpt_latest(damaged=False).",
        checkpoint=scene.newest.identity,
    )


def silent(restarted: Mapping[Damage, Restarted], scene: Scene, advisor: Advisor) -> Iterator[Finding]:
    """Yield the restarts that went on with a damaged checkpoint, or without one, and said nothing."""
    lost = {damage: found for damage, found in restarted.items() if found.way in {"scratch", "idle"} and scene.older}
    if lost:
        yield Finding(
            title=f"with {_name(next(iter(lost)))} a restart began from scratch, though {steps_text(scene.older)} "
            f"{'is' if len(scene.older) == 1 else 'are'} there whole",
            rows=tuple(_rows(lost, scene)),
            cause="what can't be loaded is treated as if nothing were there.",
            fix="go back to the newest checkpoint that loads, or end with an error; never train from the beginning in silence.",
            step=1,
            component="weights",
            checkpoint=scene.newest.identity,
        )
    wrong = {
        damage: found
        for damage, found in restarted.items()
        if found.way == "elsewhere" or (found.way == "newest" and found.difference is not None)
    }
    if wrong:
        yield _degraded(wrong, len(restarted), scene, advisor)


def _degraded(wrong: Mapping[Damage, Restarted], tried: int, scene: Scene, advisor: Advisor) -> Finding:
    damage, first = next(iter(wrong.items()))
    component = "weights" if first.difference is None else first.difference.component
    return Finding(
        title=f"with {_name(damage)} a restart went on all the same, with other {_what(first)}, and said nothing; "
        f"so did {len(wrong)} of {tried} restarts with a damaged file",
        rows=tuple(_rows(wrong, scene)),
        cause=advisor.component("latest", scene.newest).cause
        or "that a file is missing or cut is not noticed, and what it holds starts anew.",
        fix="refuse a checkpoint that lacks a file, or skip it for an older one: write a list of its files last, and check it "
        "before loading.",
        step=scene.step + 1,
        component=component,
        checkpoint=scene.newest.identity,
    )


def refusals(restarted: Mapping[Damage, Restarted], scene: Scene) -> Iterator[Finding]:
    """Yield the restarts that refused a damaged checkpoint while an older one was there."""
    refused = {damage: found for damage, found in restarted.items() if found.way == "refused"}
    if refused:
        damage, first = next(iter(refused.items()))
        yield Finding(
            title=f"with {_name(damage)} a restart fails, though step {scene.older[-1]} is there whole: {first.message}",
            rows=tuple(_rows(refused, scene)),
            cause="the search takes the newest name, be it whole or not.",
            fix="check that a checkpoint is whole before choosing it, and fall back to the one before; or accept that a restart "
            "has to be helped by hand: fall_back=False.",
            step=scene.step + 1,
            component="runs",
            checkpoint=scene.newest.identity,
        )


def took_stale(damage: Damage, found: Restarted, scene: Scene) -> Finding:
    """Describe a restart that took the checkpoint of another run for its own."""
    return Finding(
        title=f"a restart took {damage.target}, which another run left 30 days before, for the newest: it went on "
        f"{_from(found)}, not from {scene.newest.path}",
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
        + ("ended without an error" if found.way == "idle" else f"went on {_from(found)} and said nothing"),
        cause="a path that does not exist counts as none.",
        fix="end with an error where the checkpoint that was asked for is missing: a typing error must not cost the run.",
        step=1,
        component="weights",
        checkpoint=scene.newest.identity,
    )


def trains_on(found: Restarted, scene: Scene) -> Finding:
    """Describe a finished run that does not end when it is started again."""
    where = "from scratch" if found.way == "scratch" else f"after step {scene.step}, the last"
    return Finding(
        title=f"started again after its end, beside {scene.newest.path}, the job went on training {where}",
        cause="whether the run has ended is not looked at before the first step.",
        fix="compare the restored step with the last one before training, and end there.",
        step=scene.step,
        component="steps",
        checkpoint=scene.newest.identity,
    )


def holds(scene: Scene, restarted: Mapping[Damage, Restarted]) -> str:
    """Return the sentence of a promise that was kept."""
    sentence = f"a restart goes on from step {scene.step}, the newest of {steps_text((*scene.older, scene.step))}"
    ways = Counter(found.way for damage, found in restarted.items() if damage.kind in {"missing", "cut"})
    said = {
        "newest": "goes on all the same",
        "older": "takes an older one",
        "refused": "refuses",
        "scratch": "begins anew as nothing else is there",
        "idle": "does nothing as nothing else is there",
    }
    told = [f"{said[way]} in {number}" for way, number in ways.items()]
    return f"{sentence}; with a file missing or cut it {', '.join(told)}" if told else sentence


def _rows(restarted: Mapping[Damage, Restarted], scene: Scene) -> Iterator[tuple[str, str]]:
    for damage, found in list(restarted.items())[:_SHOWN]:
        inside = damage.path.removeprefix(f"{scene.newest.path}/")
        yield f"{inside} {damage.kind}", _did(found)
    if len(restarted) > _SHOWN:
        yield "...", f"{len(restarted) - _SHOWN} more"


def _did(found: Restarted) -> str:
    if found.way == "refused":
        return f"refused: {found.message}"
    if found.difference is not None:
        return f"went on from step {found.step} with other {_what(found)}"
    return "ended without training" if found.way == "idle" else f"went on {_from(found)}"


def _from(found: Restarted) -> str:
    if found.way == "scratch":
        return "from scratch"
    return "with weights of no step that was saved" if found.step is None else f"from step {found.step}"


def _what(found: Restarted) -> str:
    return "weights" if found.difference is None else components_text(found.difference)


def _name(damage: Damage) -> str:
    return f"{damage.path} {damage.kind}"
