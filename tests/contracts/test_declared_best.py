"""The best checkpoint of a plain loop, by the scores that it declares: right, wrong, gone, or not to be told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from jobs import plain
from pytest_ckpt.contracts.best_model import Best
from pytest_ckpt.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Job
    from pytest_ckpt.records.verdict import Verdict

LOSSES = {2: 0.5, 4: 0.2, 6: 0.6, 8: 0.4}


def job(
    scores: Mapping[int, float] = LOSSES,
    *,
    beats: Callable[[float, float], bool] = lambda new, old: new < old,
    names: tuple[str, ...] = ("best.pt",),
) -> Callable[[Job], None]:
    """Return a plain loop that keeps the best of its evaluations in files of these names, and the last step beside them."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saver = plain.Saver(job, model=model, optimizer=update)
        best = None
        for step in plain.steps(saver, 8, 8):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step in scores:
                job.score(scores[step])
                if best is None or beats(scores[step], best):
                    best = scores[step]
                    for name in names:
                        torch.save(model.state_dict(), job.path / name)

    return train


def verdict_of(judge: Judge, train: Callable[[Job], None], contract: Best) -> Verdict:
    """Return the contract's verdict on a job."""
    return judge(train, contract)["best"]


def test_the_best_is_kept(judge: Judge) -> None:
    """The file holds the step with the lowest loss, or the highest accuracy."""
    verdict = verdict_of(judge, job(), Best(mode="min"))
    assert ("held", "best.pt holds step 4, whose score 0.2 is the best of 4") == (verdict.status, verdict.sentence)
    higher = job(beats=lambda new, old: new > old)
    assert "best.pt holds step 6, whose score 0.6" in verdict_of(judge, higher, Best("accuracy", "max")).sentence


def test_the_comparison_goes_the_wrong_way(judge: Judge) -> None:
    """The highest loss is kept."""
    verdict = verdict_of(judge, job(beats=lambda new, old: new > old), Best(mode="min"))
    assert ("violated", "best", 4) == (verdict.status, verdict.findings[0].component, verdict.findings[0].step)
    assert "best.pt holds step 6 with score 0.6, and step 4 had 0.2" == verdict.sentence


def test_nan_is_never_the_best(judge: Judge) -> None:
    """With a first score that is NaN no other beats it; where all are NaN there is no best."""
    scores = {2: math.nan, 4: 0.2, 6: 0.6}
    assert (
        "holds step 2 with score nan, and step 4 had 0.2" in verdict_of(judge, job(scores), Best(mode="min")).sentence
    )
    never = job(scores, beats=lambda new, old: math.isnan(old) or new < old)
    assert "held" == verdict_of(judge, never, Best(mode="min")).status
    assert "all 1 scores are NaN" in verdict_of(judge, job({2: math.nan}), Best(mode="min")).sentence


def test_scores_that_are_equal(judge: Judge) -> None:
    """Any of the best is right."""
    scores = {2: 0.2, 4: 0.2, 6: 0.6}
    for beats in (lambda new, old: new < old, lambda new, old: new <= old):
        assert "held" == verdict_of(judge, job(scores, beats=beats), Best(mode="min")).status


def test_no_name_tells_it(judge: Judge) -> None:
    """With none, or with two, the path is asked for; named, it is looked at."""
    assert "can't be told by the names: none of" in verdict_of(judge, job(names=("top.pt",)), Best(mode="min")).sentence
    two = job(names=("best_a.pt", "best_b.pt"))
    assert "best_a.pt and best_b.pt" in verdict_of(judge, two, Best(mode="min")).sentence
    assert "held" == verdict_of(judge, two, Best(mode="min", path="*_b.pt")).status
    verdict = verdict_of(judge, job(names=()), Best(mode="min", path="best.pt"))
    assert ("violated", "it was never saved.") == (verdict.status, verdict.findings[0].cause)


@pytest.mark.parametrize("path", [None, "best.pt"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_link_to_the_best(judge: Judge, path: str | None, *, absolute: bool) -> None:
    """The checkpoint that it leads to is judged; one that leads nowhere is no checkpoint."""
    right = verdict_of(judge, linking(min, absolute=absolute), Best(mode="min", path=path))
    sentence = "best.pt, a link to step_4.pt, holds step 4, whose score 0.2 is the best of 4"
    assert ("held", sentence) == (right.status, right.sentence)
    wrong = verdict_of(judge, linking(max, absolute=absolute), Best(mode="min", path=path))
    sentence = "best.pt, a link to step_6.pt, holds step 6 with score 0.6, and step 4 had 0.2"
    assert ("violated", sentence) == (wrong.status, wrong.sentence)


def test_a_link_that_leads_nowhere(judge: Judge) -> None:
    """The best was deleted underneath its link."""
    verdict = verdict_of(judge, linking(min, keep=2), Best(mode="min", path="best.pt"))
    assert ("violated", "the best checkpoint, best.pt, is not on disk when training ends") == (
        verdict.status,
        verdict.sentence,
    )
    assert "it is a link to step_4.pt, where no checkpoint of this run is left." == verdict.findings[0].cause


def linking(
    choose: Callable[[Iterable[float]], float], *, absolute: bool = False, keep: int = 4
) -> Callable[[Job], None]:
    """Return a loop that keeps the newest of its saves, and a link to a link to the one whose score it chooses."""

    def train(job: Job) -> None:
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        saved: dict[int, Path] = {}
        for step in range(1, 9):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step in LOSSES:
                job.score(LOSSES[step])
                saved[step] = job.path / f"step_{step}.pt"
                torch.save(model.state_dict(), saved[step])
                for old in list(saved.values())[:-keep]:
                    old.unlink(missing_ok=True)
                best = saved[min(saved, key=lambda step: LOSSES[step] != choose(LOSSES[step] for step in saved))]
                for name, target in (("top.pt", best if absolute else best.name), ("best.pt", "top.pt")):
                    (job.path / name).unlink(missing_ok=True)
                    (job.path / name).symlink_to(target)

    return train


def test_no_direction(judge: Judge) -> None:
    """Scores alone do not say which is good."""
    verdict = verdict_of(judge, job(), Best())
    assert ("inconclusive", True) == (verdict.status, "mode='min'" in verdict.findings[0].fix)
    assert "not_applicable" == verdict_of(judge, job({}), Best()).status


@pytest.mark.filterwarnings("default")
def test_a_framework_that_chooses_otherwise(judge: Judge) -> None:
    """A Trainer that takes a high loss for good is found where the direction is asked for."""
    pytest.importorskip("transformers")
    from jobs import hf

    given: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 6}
    given |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    verdict = verdict_of(judge, lambda job: hf.run(job, script=LOSSES, **given), Best("eval_loss", "min"))
    assert "the best checkpoint is chosen by eval_loss (max), and eval_loss (min) is asked for" == verdict.sentence
    given["greater_is_better"] = False
    assert "held" == verdict_of(judge, lambda job: hf.run(job, script=LOSSES, **given), Best("loss", "min")).status


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "low"}, "mode must be 'min' where a low value is good, or 'max'; got 'low'"),
        ({"metric": 3}, "metric must be a text that is not empty; got 3"),
        ({"path": ""}, "path must be a text that is not empty; got ''"),
    ],
)
def test_arguments(given: Any, message: str) -> None:
    """They are checked where the mark is."""
    with pytest.raises(InvalidArgument, match=message):
        Best(**given)
