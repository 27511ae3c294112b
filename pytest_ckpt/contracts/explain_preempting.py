"""Saying what a signal costs a job: steps that are not saved, time that it does not have, or an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.difference_rows import components_text
from pytest_ckpt.contracts.explain_latest import went_on
from pytest_ckpt.records.verdict import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_ckpt.contracts.preempted import Preempted
    from pytest_ckpt.contracts.restarts import Restarted
    from pytest_ckpt.records.run import RunRecord
    from pytest_ckpt.records.strike import Phase

#: What the job was doing, by the phase.
_DOING: Final[dict[Phase, str]] = {
    "forward": "in a forward pass",
    "accumulation": "between the batches of a step",
    "step": "between two steps",
    "evaluation": "in an evaluation",
    "loader": "as a data loader started",
    "save": "in the midst of a save",
}
_HANDLE: Final = (
    "let the handler set a flag, look at it after each step, save there and leave; transformers does so with "
    "enable_jit_checkpoint=True, Lightning's ModelCheckpoint with save_on_exception=True."
)


def too_short(run: RunRecord, least: int) -> Finding:
    """Describe a job that is over before it could leave."""
    return Finding(
        title=f"the job trains {run.last_step} steps: too few to tell one that leaves at a signal from one that ends",
        fix=f"train at least {least} steps in the test.",
    )


def not_reached(missed: Sequence[Phase]) -> Finding:
    """Describe a job that has no such phase."""
    return Finding(
        title=f"the job came to no moment {' or '.join(_DOING[phase] for phase in missed)} in which to get the signal",
        cause="it trains without torch modules or data loaders, has no such phase after its first steps, or its saves can't be "
        "seen here.",
        fix="name the phases that it has: ckpt_preemptible(phases=('step',)).",
    )


def findings(met: Sequence[Preempted], grace: float, exit_code: int | None) -> Iterator[Finding]:
    """Describe the phases in which a signal is not answered as promised, alike ones together."""
    late = [one for one in met if one.is_late]
    over = [one for one in met if one.passes_over]
    lost = [one for one in met if one.is_lost and one not in late and one not in over]
    left = [one for one in met if one not in late and one not in over]
    if late:
        yield _finding(
            late,
            met,
            f"the job was still there {grace:g} s after the signal",
            "it waits for something, or takes too long to save.",
            "save and leave within the time of grace; it is killed then, whatever it does.",
        )
    if over:
        yield _finding(
            over,
            met,
            "the job passed over the signal and trained to its end",
            "the signal is ignored, or its handler sets a flag that is looked at too late.",
            _HANDLE,
        )
    if lost:
        died = all(one.run.outcome.signal is not None for one in lost)
        yield _finding(
            lost,
            met,
            _lost(lost[0]),
            "nothing handles the signal: the process ends at once."
            if died
            else "it leaves without a save of its last step.",
            _HANDLE,
        )
    wrong = [one for one in left if exit_code is not None and one.exit_code != exit_code]
    if wrong:
        yield _finding(
            wrong,
            met,
            f"the job left with exit code {wrong[0].exit_code}, expected {exit_code}",
            "a scheduler that starts the job again for some exit codes only takes this one for another thing.",
            f"leave by sys.exit({exit_code}) once the save is done.",
        )


def _finding(group: Sequence[Preempted], met: Sequence[Preempted], what: str, cause: str, fix: str) -> Finding:
    first = group[0]
    return Finding(
        title=what if len(met) == 1 else f"in {len(group)} of {len(met)} phases {what}",
        rows=tuple(_rows(group)),
        cause=cause,
        fix=fix,
        step=first.step,
        component="runs",
    )


def _lost(one: Preempted) -> str:
    step, newest = one.step or 0, one.choice.step
    steps = f"step {step} is" if newest + 1 == step else f"steps {newest + 1} to {step} are"
    return f"a signal costs what was trained since the last save: {steps} lost"


def _rows(group: Sequence[Preempted]) -> Iterator[tuple[str, str]]:
    for one in group:
        strike = one.run.experiment.strike
        name = strike.signal if strike is not None else "signal"
        newest = f"newest whole: step {one.choice.step}" if one.choice.step else "nothing whole"
        how = one.run.outcome.message.partition("\n")[0] or one.run.outcome.status
        yield name, f"{_DOING[one.phase]} after step {one.step}: {how}; {newest}"


def restarts(restarted: Sequence[tuple[Preempted, Restarted]]) -> Iterator[Finding]:
    """Describe restarts that do not go on from what the job has saved at the signal."""
    wrong = [(one, found) for one, found in restarted if found.way != "newest" or found.difference is not None]
    if not wrong:
        return
    one, found = wrong[0]
    path = one.left[-1].checkpoint.path
    if found.difference is not None:
        what = f"does not restore {components_text(found.difference)} as one without a signal does"
    elif found.way == "refused":
        what = f"fails: {found.message.replace(f'{one.run.directory}/', '')}"
    else:
        what = "ends at once" if found.way == "idle" else f"goes on {went_on(found)}"
    yield Finding(
        title=f"in {len(wrong)} of {len(restarted)} restarts from what was saved at a signal, beside {path}, the job {what}",
        rows=tuple(_rows([preempted for preempted, _ in wrong])),
        cause=_why(found),
        fix="save at the boundary of a step, with the function that saves at other times.",
        step=one.choice.step + 1,
        component="restart",
        checkpoint=one.left[-1].checkpoint.identity,
    )


def _why(found: Restarted) -> str:
    if found.way == "refused":
        return "what the signal has cut off lies in the way, or what is saved at a signal is in another form."
    if found.difference is not None and found.difference.component == "data":
        return (
            "what is saved counts one step more, or less, than it holds, or a batch that was taken is not trained on."
        )
    return "what is saved at a signal is in another form or place than the regular save, or of a step that had begun."


def holds(met: Sequence[Preempted], name: str) -> str:
    """Return the sentence of a job that leaves as it should."""
    text: Callable[[Preempted], str] = lambda one: _DOING[one.phase]  # noqa: E731
    return f"at {name} ({', '.join(map(text, met))}) the job saved its last step, left, and started again from there"


def left_out(missed: Sequence[Phase]) -> tuple[str, ...]:
    """Say in which phases no signal came."""
    return (
        (f"no signal came {' or '.join(_DOING[phase] for phase in missed)}: the job came to no such moment",)
        if missed
        else ()
    )
