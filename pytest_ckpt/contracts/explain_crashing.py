"""Saying at which moments a kill costs a job what it had saved, what lies in the way then, and how to save instead."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

from pytest_ckpt.contracts.crash_causes import how_to_find, why, why_gone
from pytest_ckpt.contracts.crash_table import state_rows
from pytest_ckpt.contracts.explain_latest import went_on
from pytest_ckpt.contracts.explain_power import DURABLE, why_unsynced
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.crash_scenes import CrashScene
    from pytest_ckpt.contracts.crash_table import Broken
    from pytest_ckpt.contracts.restarts import Restarted
    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.crash import CrashState, Trace
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.tree import Tree

#: How many files are listed of what lies in the way.
_FILES: Final = 6
#: How many characters of an error are shown.
_WIDEST: Final = 160

_Tried: TypeAlias = "tuple[CrashScene, Restarted]"


def not_traced(run: RunRecord) -> Finding:
    """Describe a traced run whose operations are not all known."""
    if not run.outcome.ok:
        return Finding(
            title=f"while its system calls were watched, the job did not end well: {run.outcome.message}",
            rows=tuple(("", line) for line in run.outcome.traceback.rstrip().splitlines()[-6:]),
            cause="it was the same job with the same seeds as the undisturbed run; only the clock, and what is left of an "
            "earlier run outside of ckpt_job.dir, differ; and no io_uring is allowed meanwhile (EPERM, as in most containers).",
            fix="let the job depend on none of these.",
        )
    doubt = run.trace.doubt if run.trace is not None else ""
    return Finding(
        title=f"the states that a kill can leave are not known: {doubt}",
        fix="save through files that are opened and written.",
    )


def not_from_intact(found: Restarted, newest: Checkpoint, step: int) -> Finding:
    """Describe a job that does not restart rightly without any crash."""
    why = f": {found.message}" if found.way == "refused" else f": it went on {went_on(found)}"
    return Finding(
        title=f"the job does not restart from {newest.path} where nothing is in its way{why}",
        cause=f"step {step} lies there whole; a crash has no part in this.",
        fix="see what ckpt_latest and ckpt_resumable say of this job, and mend that first.",
        checkpoint=newest.identity,
    )


def nothing_tried(count: int) -> Finding:
    """Describe a contract for which no time was left."""
    return Finding(
        title=f"none of {_states(count)} was tried within --ckpt-budget",
        cause="other contracts of this test have used it up.",
        fix="give more seconds (--ckpt-budget, ini ckpt_budget), or fewer states to each contract (most=).",
    )


def no_such_state(numbers: Sequence[int], known: int) -> Finding:
    """Describe numbers of states that this run has not."""
    text = ", ".join(map(str, numbers))
    return Finding(
        title=f"there is no crash state {text}: this run has {_states(known)}, 0 to {known - 1}",
        cause="the job writes other files, or in another order, than when the number was told; or the number is mistyped.",
        fix="run without --ckpt-crash, and take a number from the failure.",
    )


def gaps(broken: Sequence[Broken], looked_at: Sequence[int], traced: RunRecord, advisor: Advisor) -> Iterator[Finding]:
    """Describe the moments at which nothing is whole though something had been saved.

    Args:
        broken: these moments, with what a restart did where one was tried.
        looked_at: the numbers of all states that were looked at.
    """
    if not broken or traced.trace is None:
        return
    trace, first = traced.trace, broken[0][0]
    removed = trace.operations[trace.states[first.number].entered - 1].kind in {"unlink", "rmdir", "depart", "rename"}
    yield Finding(
        title=f"in {len(broken)} of {_states(len(looked_at))} that {_crash(first)} can leave there is no whole checkpoint any "
        f"more, though step {first.had} had been saved",
        rows=tuple(state_rows(broken, looked_at, trace)),
        cause=why_unsynced(trace, trace.states[first.number])
        if first.by_power
        else why_gone(first, traced, advisor, removed=removed),
        fix=DURABLE
        if first.by_power
        else "delete the old one after the new one is whole."
        if removed
        else "write to another name in the same directory, fsync, and rename it to the old one's name when it is whole.",
        step=first.had,
        component="steps",
        states=tuple(scene.number for scene, _ in broken),
    )


def restarts(wrong: Sequence[_Tried], tried: Sequence[int], traced: RunRecord, advisor: Advisor) -> Iterator[Finding]:
    """Describe what restarts did that they must not do, alike ones together.

    Args:
        tried: the numbers of all states in which the job was started again.
    """
    groups: dict[tuple[str, str], list[_Tried]] = defaultdict(list)
    for scene, found in wrong:
        component = found.difference.component if found.difference is not None else ""
        groups[found.way, component].append((scene, found))
    for group in sorted(groups.values(), key=len, reverse=True):
        yield _of_alike(group, tried, traced, advisor)


def _of_alike(group: Sequence[_Tried], tried: Sequence[int], traced: RunRecord, advisor: Advisor) -> Finding:
    scene, found = group[0]
    trace = traced.trace
    assert trace is not None  # noqa: S101 - the contract has looked
    newest = scene.newest
    return Finding(
        title=f"in {len(group)} of {_states(len(tried))} that {_crash(scene)} can leave, {_what(found, scene)}",
        rows=(*state_rows(group, tried, trace), *_one_of(group, traced, trace)),
        cause=why_unsynced(trace, trace.states[scene.number]) if scene.by_power else why(found, scene, traced, advisor),
        fix=DURABLE if scene.by_power else how_to_find(found, scene, traced, advisor),
        step=scene.step + 1,
        component=found.difference.component if found.difference is not None else "runs",
        checkpoint="" if newest is None else newest.identity,
        states=tuple(scene.number for scene, _ in group),
    )


def _one_of(group: Sequence[_Tried], traced: RunRecord, trace: Trace) -> Iterator[tuple[str, str]]:
    """Yield what lay in the directory in one of the states, and with which error a restart failed, the most frequent."""
    errors = Counter(found.message.partition(":")[0] for _, found in group)
    most = errors.most_common(1)[0][0]
    scene, found = next((scene, found) for scene, found in group if found.message.partition(":")[0] == most)
    message = found.message.replace(f"{traced.directory}/", "").replace(traced.directory, "its directory")
    told = message if len(message) <= _WIDEST else f"{message[:_WIDEST]}..."
    there = _in_the_way(trace.states[scene.number], scene.newest, trace.states[0].tree)
    for number, text in enumerate(filter(None, [told, there])):
        yield "" if number else f"state {scene.number}", text


def _what(found: Restarted, scene: CrashScene) -> str:
    """Say what a restart did."""
    beside = "" if scene.newest is None else f" though {scene.newest.path} is whole"
    if found.difference is not None:
        differs = f"{found.difference.component} of its first step {'are' if _is_plural(found) else 'is'} not"
        return f"a restart goes on from step {found.step} in a wrong state and says nothing: {differs} as after an intact save"
    lost = scene.step - (found.step or 0)
    return {
        "refused": f"a restart fails{beside}",
        "scratch": f"a restart begins from scratch{beside}, and says nothing: {scene.step} steps are lost",
        "older": f"a restart goes on from step {found.step}{beside}: {lost} steps are lost",
        "idle": f"a restart ends at once{beside}, without training and without an error",
    }.get(found.way, "a restart goes on with weights of no step that was saved, and says nothing")


def _is_plural(found: Restarted) -> bool:
    return found.difference is not None and found.difference.component.endswith("s")


def _crash(scene: CrashScene) -> str:
    return "a power failure" if scene.by_power else "a kill"


def _in_the_way(state: CrashState, newest: Checkpoint | None, before: Tree) -> str:
    """Say what else lies in the directory, of the newest folder there."""
    whole = () if newest is None else (newest.path, *newest.others)
    rest = [
        entry
        for entry in state.tree.entries
        if entry.path not in before
        and not any(entry.path == path or entry.path.startswith(f"{path}/") for path in whole)
    ]
    last = max(rest, key=lambda entry: entry.mtime_ns, default=None)
    if last is None:
        return ""
    there = "there lies" if newest is None else f"beside {newest.path} lies"
    top = last.path.partition("/")[0]
    if last.path == top and last.kind == "file":
        return f"{there} {top} ({last.size} bytes)"
    files = [entry for entry in rest if entry.kind == "file" and entry.path.startswith(f"{top}/")]
    names = [f"{entry.path.removeprefix(top + '/')} ({entry.size} bytes)" for entry in files[:_FILES]]
    more = f" and {len(files) - _FILES} more" if len(files) > _FILES else ""
    return f"{there} {top} with {', '.join(names)}{more}" if names else f"{there} {top}, empty"


def _states(count: int) -> str:
    return f"{count} state{'s' if count != 1 else ''}"


def left_out(contract: str, tried: int, all_of_them: int) -> tuple[str, ...]:
    """Say which states were not tried."""
    if tried >= all_of_them:
        return ()
    what = f"{tried} of {all_of_them} states were tried, each kind of operation on each file first"
    return (f"{what}; ckpt_{contract}(most={all_of_them}) and a larger --ckpt-budget try all",)


def holds(tried: Sequence[_Tried], all_of_them: int, *, by_power: bool) -> str:
    """Return the sentence of a job that loses nothing."""
    refused = sum(found.way == "refused" for _, found in tried)
    afresh = sum(scene.newest is None for scene, _ in tried)
    ways = [f"{len(tried) - refused - afresh} from a whole checkpoint"] if len(tried) > refused + afresh else []
    ways += [f"{afresh} before there was one"] if afresh else []
    ways += [f"{refused} refused"] if refused else []
    if not tried:
        return "a power failure leaves nothing else than a kill: all that is written is synced before it gets its name"
    crash = "after a power failure" if by_power else "after a kill"
    which = (
        _states(len(tried))
        if len(tried) == all_of_them
        else f"the {len(tried)} that were tried of {all_of_them} states"
    )
    return f"{crash}, in each of {which}, the job started again rightly: {', '.join(ways)}"
