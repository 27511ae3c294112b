"""Judging a job that shows a bug on some releases, and the same job where it does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from bugs.known import bug

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Judge
    from pytest_ckpt import Contract, Job, Verdict


class Shows:
    """Asserts that a bug is found on the releases that have it, and that nothing is found on the others."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def __call__(self, identity: str, train: Callable[[Job], object], contract: Contract) -> Verdict:
        """Judge the job, compare with what is declared, and return the verdict."""
        declared = bug(identity, contract.name)
        verdict = self._judge(train, contract)[contract.name]
        if not declared.is_here:
            assert "held" == verdict.status, verdict
            return verdict
        assert "violated" == verdict.status, verdict
        sentence = verdict.sentence.replace(str(self._judge.lab.job.path), "DIR")
        # how many states a crash can leave depends on how often each release writes
        assert declared.sentence == re.sub(r"in \d+ of \d+ states", "in N of M states", sentence)
        finding = verdict.findings[0]
        named = (finding.step, finding.component, finding.checkpoint)
        assert (declared.step, declared.component, declared.checkpoint) == named
        for part in declared.says:
            assert part in f"{finding.cause} {finding.fix}"
        return verdict

    def by_hand(self, identity: str, sentence: str, *, otherwise: str) -> None:
        """Compare what a test saw of a promise that no contract states, with what is declared or else is right."""
        declared = bug(identity, "ckpt_run")
        assert (declared.sentence if declared.is_here else otherwise) == sentence

    def not_with(self, train: Callable[[Job], object], *contracts: Contract) -> None:
        """Assert that the job without the bug keeps its promises, on every release."""
        found = {name: v for name, v in self._judge(train, *contracts).items() if v.status != "held"}
        assert {} == found


@pytest.fixture
def shows(judge: Judge) -> Shows:
    """Asserts that a bug shows: `shows("HF-01", train, FinalStep())`; `shows.not_with(train, ...)` for its twin."""
    return Shows(judge)
