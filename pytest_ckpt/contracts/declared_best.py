"""Whether the file that a job without a framework keeps as its best holds the step with the best of the scores it declared."""

from __future__ import annotations

import fnmatch
import math
from typing import TYPE_CHECKING, Literal

from pytest_ckpt.contracts.explain_saving import steps_text
from pytest_ckpt.contracts.links import links
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord


def verdict(name: str, run: RunRecord, mode: Literal["min", "max"] | None, path: str | None) -> Verdict:
    """Compare the scores with the step whose state the best checkpoint holds, by its content."""
    if mode is None:
        return inconclusive(name, _no_mode(run))
    usable = {step: score for step, score in run.scores.items() if not math.isnan(score)}
    if not usable:
        return violated(name, _all_nan(run))
    own = [checkpoint for checkpoint in run.kept if not checkpoint.foreign]
    named = [checkpoint for checkpoint in own if _is_named(checkpoint.path, path)] or _linked(run, own, path)
    if len(named) != 1:
        return _unclear(name, run, named, path)
    optimum = (max if mode == "max" else min)(usable.values())
    best = sorted(step for step, score in usable.items() if score == optimum)
    steps = () if named[0].content is None else named[0].content.steps
    if not steps:
        return inconclusive(name, _unknown(named[0]))
    called = _called(named[0], run, path)
    if not set(steps) & set(best):
        return violated(name, _another(named[0], called, steps[-1], best[0], run.scores))
    return held(name, f"{called} holds step {best[0]}, whose score {optimum:.4g} is the best of {len(run.scores)}")


def _is_named(name: str, path: str | None) -> bool:
    return "best" in name.lower() if path is None else fnmatch.fnmatchcase(name, path)


def _linked(run: RunRecord, own: Sequence[Checkpoint], path: str | None) -> list[Checkpoint]:
    """Return the checkpoints to which links lead that are called as the best one is."""
    targets = {target for name, target in links(run).items() if _is_named(name, path)}
    return [checkpoint for checkpoint in own if not targets.isdisjoint((checkpoint.path, *checkpoint.files))]


def _called(checkpoint: Checkpoint, run: RunRecord, path: str | None) -> str:
    """Return the name by which the checkpoint is known as the best one."""
    if _is_named(checkpoint.path, path):
        return checkpoint.path
    leading = [name for name, target in links(run).items() if target in {checkpoint.path, *checkpoint.files}]
    return f"{next(name for name in leading if _is_named(name, path))}, a link to {checkpoint.path},"


def _no_mode(run: RunRecord) -> Finding:
    return Finding(
        title=f"{len(run.scores)} scores were declared, and not whether a low or a high one is good",
        fix="say it: ckpt_best(mode='min') for a loss, ckpt_best(mode='max') for an accuracy.",
    )


def _all_nan(run: RunRecord) -> Finding:
    return Finding(
        title=f"all {len(run.scores)} scores are NaN, so no checkpoint is the best",
        cause="the evaluation, or training before it, diverged, and nothing was said.",
        fix="look at the first evaluation; raise where a score is NaN.",
        component="best",
    )


def _unclear(name: str, run: RunRecord, named: Sequence[Checkpoint], path: str | None) -> Verdict:
    """Return what is wrong where not exactly one checkpoint is the best by its name."""
    on_disk = ", ".join(checkpoint.path for checkpoint in run.kept) or "none"
    if path is not None and not named:
        gone = [checkpoint for checkpoint in run.written if _is_named(checkpoint.path, path)]
        leads = next((target for name, target in links(run).items() if _is_named(name, path)), None)
        cause = f"it was saved {len(gone)} times and deleted again." if gone else "it was never saved."
        return violated(
            name,
            Finding(
                title=f"the best checkpoint, {path}, is not on disk when training ends",
                rows=(("on disk", on_disk),),
                cause=cause if leads is None else f"it is a link to {leads}, where no checkpoint of this run is left.",
                fix="save it at each evaluation that beats all before it, and keep it beside the newest.",
                component="best",
            ),
        )
    found = " and ".join(checkpoint.path for checkpoint in named) if named else "none"
    return inconclusive(
        name,
        Finding(
            title=f"which checkpoint is the best one can't be told by the names: {found} of those on disk",
            rows=(("on disk", on_disk),),
            fix="name it: ckpt_best(mode='min', path='best.pt').",
        ),
    )


def _unknown(checkpoint: Checkpoint) -> Finding:
    return Finding(
        title=f"which step {checkpoint.path} holds can't be told by its content",
        fix="save the weights as they are, or cast, under any names.",
        checkpoint=checkpoint.identity,
    )


def _another(checkpoint: Checkpoint, called: str, step: int, best: int, scores: Mapping[int, float]) -> Finding:
    own = f"score {scores[step]:.4g}" if step in scores else "no score"
    listed = ", ".join(f"{score:.4g} at {at}" for at, score in sorted(scores.items())[:8])
    return Finding(
        title=f"{called} holds step {step} with {own}, and step {best} had {scores[best]:.4g}",
        rows=(("scores", listed + (" ..." if len(scores) > 8 else "")), ("evaluated", steps_text(scores))),  # noqa: PLR2004 - a line
        cause="the comparison with the best so far goes the wrong way, is not kept across a resume, or NaN took part in it.",
        fix="replace it only where the new score beats the best so far, and start from the worst possible value.",
        step=best,
        component="best",
        checkpoint=checkpoint.identity,
    )
