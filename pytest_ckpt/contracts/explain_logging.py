"""Saying what a job announced and did not do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.explain_saving import listing, saved_elsewhere, some_of, steps_text
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.contracts.announcements import Announcement
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

#: How much of a line is shown.
_SHOWN: Final = 160


def nothing_announced(pattern: str | None) -> Finding:
    """Return the finding of a job that says nothing of saving."""
    if pattern is not None:
        return Finding(
            title=f"no line of the job's output fits the pattern {pattern!r}",
            cause="the job says it in other words, or its logging is set to a level that leaves them out.",
            fix="look at what the job prints, with pytest -rA, and mend the pattern.",
        )
    return Finding(
        title="the job announces no save: nothing in its output reads like one, and no framework told of one",
        cause="it is silent about saving, or says it in words that are not known here.",
        fix='say which lines announce a save: ckpt_logged(pattern=r"checkpoint (?P<path>\\S+) done").',
    )


def only_outside(announced: Sequence[Announcement]) -> Finding:
    """Return the finding of a job that saves elsewhere by all that it says."""
    paths = some_of(dict.fromkeys(one.path for one in announced))
    return Finding(
        title=f"all saves that the job announces lie outside ckpt_job.dir: {paths}",
        cause="what is there is not looked at.",
        fix="build the paths of checkpoints from ckpt_job.dir.",
    )


def nowhere(one: Announcement, run: RunRecord) -> Finding:
    """Describe a save that was announced and not made."""
    return Finding(
        title=f"{_who(one, run)}, and {_what(one)}",
        rows=(*_place(one), ("saved at", steps_text(run.saved_steps)), ("on disk", _on_disk(run))),
        cause=saved_elsewhere(run)
        or "the save is skipped, fails without a word, or goes to another place than is said.",
        fix="tell of a save where it is made, and after it; or make the save that is told of.",
        step=one.said.step,
        component="log",
    )


def incomplete(one: Announcement, checkpoint: Checkpoint, run: RunRecord) -> Finding:
    """Describe a save that was announced and is not whole."""
    problem = checkpoint.problem or "files are missing"
    return Finding(
        title=f"{_who(one, run)}, and {checkpoint.path} is not whole in the end: {problem}",
        rows=(*_place(one), ("has", some_of(checkpoint.files, most=12))),
        cause="the save stopped before its end, or its files were removed or overwritten later.",
        fix="find out with ckpt_complete what is missing, and tell of a save when it is done.",
        step=one.said.step,
        component="log",
        checkpoint=checkpoint.identity,
    )


def _who(one: Announcement, run: RunRecord) -> str:
    last = ", the last" if one.said.step == run.last_step else ""
    when = f"after step {one.said.step}{last}," if one.said.step else "before the first step"
    if not one.said.text:
        names = " and ".join(facts.name for facts in run.frameworks) or "the framework"
        return f"{when} {names} tells its callbacks that a save is finished"
    text = one.said.text.replace(f"{run.directory}/", "")
    return f'{when} the job says "{text if len(text) <= _SHOWN else text[:_SHOWN] + " .."}"'


def _what(one: Announcement) -> str:
    if one.number is not None:
        return f"no checkpoint of step {one.number} was written"
    if not one.said.text:
        return "wrote no file with a model"
    if one.path and not one.begins:
        return "no such file was ever there"
    return "writes no model there" if one.path else "writes no model"


def _place(one: Announcement) -> tuple[tuple[str, ...], ...]:
    return (("said on", one.said.source),) if one.said.text else ()


def _on_disk(run: RunRecord) -> str:
    return listing(checkpoint.path for checkpoint in run.kept) or "none"
