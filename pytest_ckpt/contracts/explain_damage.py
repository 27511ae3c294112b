"""Saying what a restart does with a checkpoint of which a file is missing or cut."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.difference_rows import components_text
from pytest_ckpt.contracts.explain_latest import went_on
from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.restarts import Restarted, Scene
    from pytest_ckpt.records.experiment import Damage

#: How many rows of one kind a finding shows.
_SHOWN: Final = 8


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
    return "ended without training" if found.way == "idle" else f"went on {went_on(found)}"


def _what(found: Restarted) -> str:
    return "weights" if found.difference is None else components_text(found.difference)


def _name(damage: Damage) -> str:
    return f"{damage.path} {damage.kind}"
