"""What a contract concluded, in data that every report can render."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pytest_ckpt.records.codec import Record

Status: TypeAlias = Literal["held", "violated", "not_applicable", "inconclusive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """One broken promise, or one reason why it could not be decided.

    Attributes:
        title: a sentence with the numbers: what was expected, what was found.
        rows: a table below it: label and text.
        cause: why this happened, as far as it can be told.
        fix: what to do.
        step: the step at which it shows.
        component: what differs, one of `pytest_ckpt.records.state.COMPONENTS` or `runs`, `steps`.
        checkpoint: identity of the checkpoint concerned.
        states: numbers of the crash states in which it shows.
    """

    title: str
    rows: tuple[tuple[str, ...], ...] = ()
    cause: str = ""
    fix: str = ""
    step: int | None = None
    component: str = ""
    checkpoint: str = ""
    states: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline(Record):
    """The steps of a job and what was saved of them, for drawing.

    Attributes:
        steps: how many optimizer steps were trained.
        saved: the steps that were saved at some time.
        kept: those still on disk at the end.
    """

    steps: int
    saved: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()

    @property
    def lost(self) -> int:
        """How many steps were trained after the newest kept checkpoint."""
        return self.steps - max(self.kept, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    """What one contract concluded about one job.

    Attributes:
        contract: the contract's name, such as `final_step`.
        status: `held`, `violated`, `not_applicable` or `inconclusive`.
        sentence: the verdict in one line, with numbers.
        findings: the details, the most important first.
        notes: what was seen and is not a violation.
        timeline: of the run that it is on, where the job was run with several settings.
    """

    contract: str
    status: Status
    sentence: str
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    timeline: Timeline | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: the promise was kept, or there is none."""
        return self.status in {"held", "not_applicable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice(Record):
    """Why a promise was broken, and what to do about it, in a framework's own terms; empty where it has none."""

    cause: str = ""
    fix: str = ""


def held(contract: str, sentence: str, *notes: str) -> Verdict:
    """Return the verdict of a promise that was kept."""
    return Verdict(contract=contract, status="held", sentence=sentence, notes=notes)


def violated(contract: str, *findings: Finding, notes: tuple[str, ...] = ()) -> Verdict:
    """Return the verdict of a promise that was broken; the first finding's title is the sentence."""
    return Verdict(contract=contract, status="violated", sentence=findings[0].title, findings=findings, notes=notes)


def inconclusive(contract: str, *findings: Finding) -> Verdict:
    """Return the verdict of a promise that could not be decided, and why."""
    return Verdict(contract=contract, status="inconclusive", sentence=findings[0].title, findings=findings)


def not_applicable(contract: str, sentence: str) -> Verdict:
    """Return the verdict of a promise that this job cannot make."""
    return Verdict(contract=contract, status="not_applicable", sentence=sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult(Record):
    """All that one test's job came to: written once, read by each of the test's items.

    Attributes:
        test: the node id without the contract.
        verdicts: one per selected contract.
        timeline: of the baseline; None if it could not be run, or was with several settings that all hold.
        frameworks: names and versions.
        experiments: titles of the runs that were made, with their seconds.
        sections: captured output of the baseline, and of a run that failed, by title.
        error: why the job could not be run at all; empty if it could.
        skipped: the reason if the job skipped itself.
        kept_dirs: directories that were kept for a look, with what they hold.
        seconds: wall-clock time of all experiments.
    """

    test: str
    verdicts: tuple[Verdict, ...] = ()
    timeline: Timeline | None = None
    frameworks: tuple[str, ...] = ()
    experiments: tuple[tuple[str, ...], ...] = ()
    sections: tuple[tuple[str, ...], ...] = ()
    error: str = ""
    skipped: str = ""
    kept_dirs: tuple[str, ...] = ()
    seconds: float = 0.0

    def verdict_of(self, contract: str) -> Verdict | None:
        """Return the verdict of that contract, if it was asked for."""
        return next((verdict for verdict in self.verdicts if verdict.contract == contract), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemReport(Record):
    """What one test item (one contract of one test) came to in a session.

    Attributes:
        nodeid: of the item.
        contract: its contract.
        outcome: pytest's word: `passed`, `failed`, `skipped`, `error`, `xfailed` or `xpassed`.
        reason: why it was skipped, expected to fail or is in error.
        verdict: absent if the job could not be run.
        job: what the test's job came to, without its sections.
    """

    nodeid: str
    contract: str
    outcome: str
    reason: str = ""
    verdict: Verdict | None = None
    job: JobResult | None = None
