"""Saying what a full disk costs a job: errors that it swallows, checkpoints that it loses, restarts that fail."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts import explain_crashing
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_latest import went_on
from pytest_ckpt.contracts.explain_saving import no_steps, steps_text
from pytest_ckpt.contracts.save_calls import whole
from pytest_ckpt.records.fault import SAYS
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.faulted import Ending, Faulted
    from pytest_ckpt.contracts.restarts import Restarted
    from pytest_ckpt.records.run import RunRecord

#: How many calls, files and lines are listed.
_ROWS: Final = 4
_STACK: Final = 6

_ATOMIC: Final = (
    "write under another name in the same directory, give it its name by a rename once it is whole, remove it where that "
    "fails, and delete the old one only then."
)
_RAISE: Final = (
    "let the error end the job; or log it, go on, and end with an error where the last save has failed as well."
)


# -- what can't be said ----------------------------------------------------------------------------------------------------


def not_traced(run: RunRecord) -> Finding:
    """Describe a run whose calls are not all known."""
    found = explain_crashing.not_traced(run)
    doubt = run.trace.doubt if run.trace is not None else ""
    return replace(found, title=f"which calls a save makes is not known: {doubt}") if run.outcome.ok else found


def nothing_to_fail(run: RunRecord, advisor: Advisor) -> Finding:
    """Describe a job that has no save to be disturbed."""
    if not run.last_step:
        return no_steps()
    if not whole(run, advisor):
        return nothing_saved(run)
    return Finding(
        title="no call by which the job saves was seen in its directory",
        cause="what is saved lies elsewhere, or is written through a file that was open before.",
        fix="build the paths of checkpoints from ckpt_job.dir.",
    )


def other_calls(unmet: int, tried: int) -> Finding:
    """Describe a job whose repetition makes other calls."""
    return Finding(
        title=f"in {unmet} of {_runs(tried)} the job did not come to the call that was to fail",
        cause="with the same seeds it makes other calls than before: fewer writes, or none of that kind.",
        fix="make what is saved depend on nothing but the seeds.",
    )


# -- what is broken --------------------------------------------------------------------------------------------------------


def endings(faulted: Sequence[Faulted]) -> Iterator[Finding]:
    """Describe the runs that ended as if nothing had happened, or not at all; alike ones together."""
    groups: dict[Ending, list[Faulted]] = defaultdict(list)
    for one in faulted:
        groups[one.ending].append(one)
    for ending in ("hung", "silent", "unsaved", "unsynced"):
        if groups.get(ending):
            yield _of_ending(ending, groups[ending], len(faulted))


def _of_ending(ending: str, group: Sequence[Faulted], tried: int) -> Finding:
    one = group[0]
    which = f"in {len(group)} of {_runs(tried)} with a call of a save that fails"
    missing = f"{steps_text(one.lost)} {'was' if len(one.lost) == 1 else 'were'} not saved" if one.lost else ""
    title, cause, fix = {
        "hung": (
            f"{which}, the job hung until its deadline",
            "who saves has ended by the error, and the job waits for it for ever.",
            "have the thread that waits see the error, and raise it there.",
        ),
        "silent": (
            f"{which}, the job ended as if nothing had happened and said nothing: {missing}",
            "a thread or a process of the job has raised the error, and nobody asked how it ended."
            if one.unheard
            else "the error is caught around the save, and neither raised again nor logged.",
            "keep what the thread raises, as a concurrent.futures.Future does, and raise it at the next save and at the end."
            if one.unheard
            else _RAISE,
        ),
        "unsaved": (
            f"{which}, the job ended well though its last save had failed: {missing}",
            "errors of saves are logged, the last one's as well, and the exit code says that all went well.",
            "end with an error where the last save has failed: a scheduler reads the exit code, not the log.",
        ),
        "unsynced": (
            f"{which}, an fsync failed and the job said nothing: what was saved may not be on the disk",
            "the error of fsync is caught and passed over; after it, the file's bytes may be lost though they can be read.",
            "treat an error of fsync as one of the write: write the file again, or let the error end the job.",
        ),
    }[ending]
    return Finding(
        title=title,
        rows=(*_calls(group), *_ended(one), *_saved(one)),
        cause=cause,
        fix=fix,
        step=one.lost[0] if one.lost else None,
        component="error",
    )


def losses(faulted: Sequence[Faulted]) -> Iterator[Finding]:
    """Describe the runs after which nothing is whole any more, though something was before."""
    group = [one for one in faulted if one.before is not None and one.choice.step < one.before.step]
    if not group:
        return
    first = group[0]
    assert first.before is not None  # noqa: S101 - so they were chosen
    path, there = first.before.checkpoint.path, {entry[0] for entry in first.key}
    deleted = path not in there
    left = f"the newest whole is of step {first.choice.step}" if first.choice.step else "nothing is whole any more"
    yield Finding(
        title=f"in {len(group)} of {_runs(len(faulted))} with a call of a save that fails, {path} was lost, which was whole "
        f"before: {left}",
        rows=(*_calls(group), *_ended(first), ("on disk", _listing(first))),
        cause="the old checkpoint is deleted before the new one is whole."
        if deleted
        else "the new checkpoint is written over the old one.",
        fix=_ATOMIC,
        step=first.before.step,
        component="steps",
        checkpoint=first.before.checkpoint.identity,
    )


def restarts(wrong: Sequence[tuple[Faulted, Restarted]], tried: int) -> Iterator[Finding]:
    """Describe what restarts made of what was left, alike ones together."""
    groups: dict[tuple[str, str], list[tuple[Faulted, Restarted]]] = defaultdict(list)
    for one, found in wrong:
        component = found.difference.component if found.difference is not None else ""
        groups[found.way, component].append((one, found))
    for group in sorted(groups.values(), key=len, reverse=True):
        one, found = group[0]
        newest = one.left[-1].checkpoint if one.left else None
        yield Finding(
            title=f"in {len(group)} of {tried} {_restarts(tried)} after a save that failed, {_what_restart_did(one, found)}",
            rows=(
                *_calls([faulted for faulted, _ in group]),
                ("newest whole", "none" if newest is None else f"{newest.path}, step {one.choice.step}"),
                ("on disk", _listing(one)),
                *((("restart", found.message.replace(f"{one.run.directory}/", "")),) if found.way == "refused" else ()),
            ),
            cause="the search takes the newest name, and the unfinished save is what it finds there."
            if found.way == "refused"
            else "an unfinished save is read as far as it goes, or what can't be read counts as a first start.",
            fix=_ATOMIC,
            step=one.choice.step + 1,
            component=found.difference.component if found.difference is not None else "runs",
            checkpoint="" if newest is None else newest.identity,
        )


def _what_restart_did(one: Faulted, found: Restarted) -> str:
    beside = f" though {one.left[-1].checkpoint.path} is whole" if one.left else ""
    if found.difference is not None:
        return (
            f"a restart goes on from step {one.choice.step} with another {found.difference.component}, and says nothing"
        )
    if found.way == "elsewhere" and found.step is not None:
        return f"a restart goes on from what there is of step {found.step}, which is not whole, and says nothing"
    return {
        "refused": f"a restart fails{beside}",
        "scratch": f"a restart begins from scratch{beside}, and says nothing: {one.choice.step} steps are lost",
        "idle": f"a restart ends at once{beside}, without training and without an error",
    }.get(found.way, f"a restart goes on {went_on(found)}{beside}, and says nothing")


# -- rows ------------------------------------------------------------------------------------------------------------------


def _calls(group: Sequence[Faulted]) -> Iterator[tuple[str, str]]:
    """Yield the first calls that failed."""
    for one in group[:_ROWS]:
        first, fault = one.refused, one.run.experiment.fault
        if first is not None and fault is not None:
            more = ", and all later ones" if fault.lasts else ""
            yield "failed", f"{first.text}: {SAYS[fault.error]} ({fault.error}){more}"
    if len(group) > _ROWS:
        yield "", f"and {len(group) - _ROWS} more"


def _ended(one: Faulted) -> Iterator[tuple[str, str]]:
    outcome = one.run.outcome
    how = "well, with exit code 0" if one.ended_well else outcome.message.partition("\n")[0] or outcome.status
    yield "job ended", how.replace(f"{one.run.directory}/", "")
    if one.told:
        yield "it said", one.told[0]
    elif one.unheard:
        yield "in a thread", one.unheard[-1]
    if outcome.status == "hung":
        yield from (("", line) for line in outcome.traceback.rstrip().splitlines()[:_STACK])


def _saved(one: Faulted) -> Iterator[tuple[str, str]]:
    steps = {saved.step for saved in one.left}
    yield "on disk", steps_text(sorted(steps)) + " whole" if steps else "nothing whole"


def _listing(one: Faulted) -> str:
    """Name the files that were left, the last written first."""
    files = sorted((entry for entry in one.run.left.entries if entry.kind == "file"), key=lambda entry: -entry.mtime_ns)
    names = [f"{entry.path} ({entry.size} bytes)" for entry in files[:_ROWS]]
    more = f" and {len(files) - _ROWS} more" if len(files) > _ROWS else ""
    return f"{', '.join(names)}{more}" if names else "nothing"


def _runs(count: int) -> str:
    return f"{count} run{'s' if count != 1 else ''}"


# -- what holds ------------------------------------------------------------------------------------------------------------


def holds(met: Sequence[Faulted], restarted: Sequence[Restarted]) -> str:
    """Return the sentence of a job that loses no more than the save that fails."""
    failed = sum(one.ending == "failed" for one in met)
    told = sum(one.ending == "told" for one in met)
    saved = len(met) - failed - told
    ways = [f"{failed} ended the job with an error"] if failed else []
    ways += [f"{told} were told of"] if told else []
    ways += [f"{saved} cost no save"] if saved else []
    again = Counter("refused" if found.way == "refused" else "went on" for found in restarted)
    text = f"of {len(met)} calls of a save that failed, {', '.join(ways)}"
    what = [f"{count} {_restarts(count)} {way}" for way, count in sorted(again.items(), reverse=True)]
    return f"{text}; {' and '.join(what)}" if what else text


def _restarts(count: int) -> str:
    return "restart" if count == 1 else "restarts"
