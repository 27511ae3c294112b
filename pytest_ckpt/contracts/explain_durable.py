"""Saying what a slow disk shows of saves in the background: what is not finished in the end, and what holds later states."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts import explain_crashing
from pytest_ckpt.contracts.background import writers
from pytest_ckpt.contracts.explain_saving import checkpoints_text, some_of, steps_text
from pytest_ckpt.contracts.moments import moved
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.slowly_saved import SlowlySaved
    from pytest_ckpt.contracts.vain_saves import VainSave
    from pytest_ckpt.records.run import RunRecord

#: How many checkpoints, files and tensors are listed, and lines of a traceback.
_ROWS: Final = 5
_STACK: Final = 6

_THREAD: Final = (
    "a thread with daemon=True ends with the job, whatever it does; or the job waits for another save than this."
)
_PROCESS: Final = "a process that nobody waits for, or with daemon=True, is ended with the job."
_WAIT: Final = (
    "keep what each save returns, and wait for all of them before the job ends: thread.join(), future.result(), "
    "process.join()."
)
_LIVE: Final = (
    "what is saved in the background is the state that training goes on with: state_dict() returns references, and "
    "optimizer.step() writes into the same memory."
)
_COPY: Final = (
    "copy before the save begins (copy.deepcopy(state), or clone() of each tensor), or wait for it before the next "
    "optimizer.step()."
)


# -- what can't be said ----------------------------------------------------------------------------------------------------


def not_traced(run: RunRecord) -> Finding:
    """Describe a run whose operations are not all known."""
    found = explain_crashing.not_traced(run)
    doubt = run.trace.doubt if run.trace is not None else ""
    title = f"what is written in the background is not known: {doubt}"
    return replace(found, title=title) if run.outcome.ok else found


def not_ended(slow: RunRecord, traced: RunRecord) -> Finding:
    """Describe a job that did not come to its end on the slow disk."""
    outcome = slow.outcome
    rows = [("", line) for line in outcome.traceback.rstrip().splitlines()[:_STACK]]
    return Finding(
        title=f"with a slow disk in the background, the job came to {outcome.message or 'no end'}; otherwise it takes "
        f"{traced.outcome.seconds:.1f} s",
        rows=(("held back", _each(slow)), *rows),
        cause="it waits for its saves, which took longer, or for one that never ends.",
        fix="give it more time (--ckpt-timeout); if it still does not end, look at where it stands.",
    )


def trained_otherwise() -> Finding:
    """Describe a job whose training depends on how fast its disk is."""
    return Finding(
        title="with a slow disk in the background, the job trained other steps than without",
        cause="with the same seeds it depends on time, or a thread uses the random generators that training uses.",
        fix="make the job train the same again with the same seeds; ckpt_resumable says in what it differs.",
    )


def nothing_kept() -> Finding:
    """Describe a job that leaves nothing that could be looked at."""
    return Finding(
        title="no checkpoint that is saved in the background is on disk in the end under the same name each time",
        cause="all are deleted again, or their names tell the time.",
        fix="keep at least one, under a name that depends on the step only.",
    )


def not_comparable(unclear: Sequence[SlowlySaved]) -> Finding:
    """Describe checkpoints of which nothing stays the same from run to run."""
    return Finding(
        title=f"{some_of([one.usual.path for one in unclear])}: what it holds can't be compared between two runs",
        cause="no tensor in it could be read, and its bytes differ each time.",
        fix="save in a format of which tensors can be read, such as that of torch.save or safetensors.",
        checkpoint=unclear[0].usual.identity,
    )


# -- what is broken --------------------------------------------------------------------------------------------------------


def failed(slow: RunRecord) -> Finding:
    """Describe a job that a slow disk ends."""
    outcome = slow.outcome
    return Finding(
        title=f"the job failed because its saves in the background were slow: "
        f"{outcome.message.partition(chr(10))[0].replace(f'{slow.directory}/', '')}",
        rows=(("held back", _each(slow)), *(("", line) for line in outcome.traceback.rstrip().splitlines()[-_STACK:])),
        cause="it was the same job with the same seeds; without the slow disk it ended well.",
        fix="wait for a save that is still going on where the next one, or what reads it, needs it done.",
        component="runs",
    )


def unfinished(lost: Sequence[SlowlySaved], among: int) -> Iterator[Finding]:
    """Describe the saves that were not finished when the job had ended."""
    if not lost:
        return
    steps = sorted({one.asked for one in lost})
    which = f"the save of {steps_text(steps)} was" if len(lost) == 1 else f"the saves of {steps_text(steps)} were"
    by_process = any(one.by_process for one in lost)
    yield Finding(
        title=f"the job ended with exit code 0 while {which} not finished: {_how_much(lost, among)}",
        rows=(
            *((one.usual.path, _lacks(one)) for one in lost[:_ROWS]),
            ("written by", "another process" if by_process else "a thread"),
            ("held back", _each(lost[0].runs[2])),
        ),
        cause=_PROCESS if by_process else _THREAD,
        fix=_WAIT,
        step=steps[0],
        component="steps",
        checkpoint=lost[0].usual.identity,
    )


def come_to_nothing(vain: Sequence[VainSave], slow: RunRecord) -> Iterator[Finding]:
    """Describe saves that were begun and not finished, and that the undisturbed runs have not finished either."""
    if not vain:
        return
    first = vain[0]
    of = "a save" if first.step is None else f"the save of {steps_text([first.step])}"
    yield Finding(
        title=f"the job ended with exit code 0 while {of} was not finished: {first.path} {first.lack}",
        rows=(*((one.path, one.lack) for one in vain[:_ROWS]), ("held back", _each(slow))),
        cause=_PROCESS if first.step is None else _THREAD,
        fix=_WAIT,
        step=first.step,
        component="steps",
    )


def _how_much(lost: Sequence[SlowlySaved], among: int) -> str:
    if len(lost) > 1:
        return f"{among - len(lost)} of {checkpoints_text(among)} whole"
    one = lost[0]
    count = len(one.usual.files)
    return f"{count - len(one.missing)} of {count} files" if count > 1 else f"{one.usual.path} {_lacks(one)}"


def _lacks(one: SlowlySaved) -> str:
    found = [text if path == one.usual.path else f"{path} {text}" for path, text in one.missing.items()]
    return some_of(found)


def changed(wrong: Sequence[SlowlySaved], among: int) -> Iterator[Finding]:
    """Describe the checkpoints that hold what came after they were asked for."""
    if not wrong:
        return
    one = wrong[0]
    rows = list(_tensors(one))
    more = f"in {len(wrong)} of {checkpoints_text(among)}: " if among > 1 else ""
    yield Finding(
        title=f"{more}step {one.asked} was asked to be saved, and {one.usual.path} {_what(one)}: it was "
        "changed while it was being written",
        rows=(
            *rows[:_ROWS],
            *([("", f"and {len(rows) - _ROWS} more tensors")] if len(rows) > _ROWS else []),
            *((other.usual.path, f"asked for after step {other.asked}: {_what(other)}") for other in wrong[1:_ROWS]),
            ("held back", _each(one.runs[2])),
        ),
        cause=_why_damaged(one) if one.damage else _LIVE,
        fix=_COPY,
        step=one.asked,
        component=_component(one),
        checkpoint=one.usual.identity,
    )


def _what(one: SlowlySaved) -> str:
    """Say what a checkpoint holds instead."""
    if one.damage:
        return "is damaged"
    if one.is_late and one.held:
        return f"holds the weights of {steps_text(one.held[:1])}"
    if one.is_late:
        return "holds parts of several steps"
    if one.other_tensors:
        return f"holds {_component(one)} of another moment"
    return "holds other bytes than without a slow disk"


def _why_damaged(one: SlowlySaved) -> str:
    threads = {operation.thread for operation in writers(one.usual, one.runs[2])}
    return _LIVE if len(threads) == 1 else f"several saves write to it at a time. Or {_LIVE}"


def _component(one: SlowlySaved) -> str:
    """Name the component of which most is other than it was."""
    if one.is_late and one.held:
        return "weights"
    names = Counter(component for _, component, _ in moved(one) if component)
    return names.most_common(1)[0][0] if names else "tensors"


def _tensors(one: SlowlySaved) -> Iterator[tuple[str, str]]:
    """Yield the tensors that are of another moment, and of which."""
    if one.damage:
        path, _, problem = one.damage.partition(": ")
        yield path, problem
    for key, component, steps in moved(one):
        yield key, f"{component} of {steps_text(sorted(steps)[:1])}" if steps else "of no moment between two steps"


def _each(slow: RunRecord) -> str:
    return f"each call in the background, {_seconds(slow)}"


def _seconds(slow: RunRecord) -> str:
    """Say how slow the disk was."""
    slowness = slow.experiment.slowness
    return f"{0.0 if slowness is None else slowness.seconds:.2f} s"


# -- what holds ------------------------------------------------------------------------------------------------------------


def holds(there: Sequence[SlowlySaved], count: int, slow: RunRecord) -> str:
    """Return the sentence of a job whose saves in the background are right."""
    which, them = (
        ("the checkpoint was", "it was") if len(there) == 1 else (f"all {len(there)} checkpoints were", "they were")
    )
    return (
        f"with each of {count} background operations held back {_seconds(slow)}, {which} whole in the end, with what "
        f"was there when {them} asked for"
    )


def passed_over(over: Sequence[SlowlySaved]) -> Iterator[str]:
    """Say which saves the job did not ask for on the slow disk."""
    if over:
        steps = steps_text(sorted({one.asked for one in over}))
        yield f"with the slow disk the job did not save {steps}: a save before was still going on"
