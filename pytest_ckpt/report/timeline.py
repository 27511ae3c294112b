"""One line that shows which steps of a job were saved, which of those are left, and what a crash would lose."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_ckpt.records.verdict import Timeline

_NO_STEPS: Final = "no step was trained"
#: A gap of a single step is drawn as its number where that is no longer than the dots.
_AS_SHORT_AS_DOTS: Final = 99


def draw(timeline: Timeline, width: int = 80) -> str:
    """Return the steps in one line of at most `width` columns (40 or more), such as `1 2 3 [4] 5 6 7 <8> 9 (10)`.

    A line that would be too long leaves out steps (`..`), then saves: `[..]` stands for several on disk, `<..>` for
    several that were deleted again. The last step is always shown, then the newest save on disk, then the others from
    both ends.
    """
    marks = _Marks.of(timeline)
    if marks.last == 0 and not marks.saved:
        return _NO_STEPS
    for shown in _candidates(marks, width):
        line = _line(marks, shown)
        if len(line) <= width:
            return line
    return _fitted(marks, width)


def legend(timeline: Timeline) -> str:
    """Explain the marks that occur in the line of a job, and name the steps that are lost."""
    marks, lost = "  ".join(key([timeline])), lost_steps(timeline)
    if not lost:
        return marks
    behind_last_step = ", " if _Marks.of(timeline).last_is_unsaved else "  "
    return f"{marks}{behind_last_step}lost: {lost}"


def key(timelines: Iterable[Timeline]) -> list[str]:
    """Explain each of the marks that occur in the lines of several jobs."""
    marks = [_Marks.of(timeline) for timeline in timelines]
    texts = {
        "[n] on disk": any(one.kept for one in marks),
        "<n> deleted again": any(one.deleted for one in marks),
        "(n) last step": any(one.last_is_unsaved for one in marks),
    }
    return [text for text, occurs in texts.items() if occurs]


def lost_steps(timeline: Timeline) -> str:
    """Return the steps after the newest checkpoint on disk, such as `9 to 10`; empty if there are none."""
    marks = _Marks.of(timeline)
    newest = marks.kept[-1] if marks.kept else 0
    if newest >= marks.last:
        return ""
    return str(marks.last) if newest + 1 == marks.last else f"{newest + 1} to {marks.last}"


@dataclass(frozen=True, slots=True)
class _Marks:
    """The steps that are more than a number, each group in ascending order; 0 is a save before the first step."""

    last: int
    kept: tuple[int, ...]
    deleted: tuple[int, ...]

    @classmethod
    def of(cls, timeline: Timeline) -> _Marks:
        kept = {step for step in timeline.kept if 0 <= step <= timeline.steps}
        deleted = {step for step in timeline.saved if 0 <= step <= timeline.steps} - kept
        return cls(timeline.steps, tuple(sorted(kept)), tuple(sorted(deleted)))

    @property
    def saved(self) -> tuple[int, ...]:
        return tuple(sorted((*self.kept, *self.deleted)))

    @property
    def last_is_unsaved(self) -> bool:
        return self.last > 0 and self.last not in self.kept and self.last not in self.deleted

    def text(self, step: int) -> str:
        if _between(self.kept, step - 1, step + 1):
            return f"[{step}]"
        if _between(self.deleted, step - 1, step + 1):
            return f"<{step}>"
        return f"({step})" if step == self.last else str(step)

    def gap(self, before: int, after: int) -> tuple[str, ...]:
        """Return what stands for the steps between two that are shown."""
        kept, deleted = _between(self.kept, before, after), _between(self.deleted, before, after)
        if kept and deleted:
            return ("[..]", "<..>") if kept[-1] < deleted[0] else ("<..>", "[..]")
        if kept or deleted:
            return ("[..]",) if kept else ("<..>",)
        steps = after - 1 - max(before, 0)
        if steps <= 0:
            return ()
        return (str(after - 1),) if steps == 1 and after - 1 <= _AS_SHORT_AS_DOTS else ("..",)


def _between(steps: Sequence[int], before: int, after: int) -> Sequence[int]:
    """Return those of `steps` that lie between the two, which are not included."""
    return steps[bisect_right(steps, before) : bisect_left(steps, after)]


def _line(marks: _Marks, shown: Iterable[int]) -> str:
    words: list[str] = []
    before = -1
    for step in shown:
        words += (*marks.gap(before, step), marks.text(step))
        before = step
    return " ".join(words)


def _candidates(marks: _Marks, width: int) -> Iterator[Sequence[int]]:
    """Yield which steps to show, the most first; what can't fit is not tried, as there may be a million."""
    if marks.last <= width:
        yield sorted({*range(1, marks.last + 1), *marks.saved, marks.last})
    if len(marks.kept) + len(marks.deleted) <= width:
        yield sorted({min(1, marks.last), *marks.saved, marks.last} - ({0} - set(marks.saved)))


def _fitted(marks: _Marks, width: int) -> str:
    """Show the last step, and of the others as many as fit, by their weight."""
    shown = [marks.last]
    line = _line(marks, shown)
    for step in islice(_by_weight(marks), width):
        more = sorted({*shown, step})
        longer = _line(marks, more)
        if len(longer) <= width:
            shown, line = more, longer
    return line if len(line) <= width else marks.text(marks.last)


def _by_weight(marks: _Marks) -> Iterator[int]:
    yield from marks.kept[-1:]
    yield min(1, marks.last)
    yield from _from_both_ends(marks.kept)
    yield from _from_both_ends(marks.deleted)


def _from_both_ends(steps: Sequence[int]) -> Iterator[int]:
    for place in range((len(steps) + 1) // 2):
        yield steps[-1 - place]
        yield steps[place]
