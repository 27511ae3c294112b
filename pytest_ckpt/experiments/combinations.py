"""The combinations of a sweep, from small to large, and which of them to run next to find the smallest that breaks.

A combination is known by its places: the position of each value in the list that was given for its name. The smaller the
sum of those, the smaller it is; of equal sums, the one that comes first in the order of numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

#: The position of each value among those given for its name.
Places: TypeAlias = tuple[int, ...]


def size(places: Places) -> tuple[int, Places]:
    """Return what combinations are ordered by."""
    return sum(places), places


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Values by the names of the arguments that take them, and how many combinations may be run.

    Attributes:
        values: in the order in which they get larger, none twice.
        most: so many combinations are run at most.
    """

    values: Mapping[str, Sequence[object]]
    most: int

    @property
    def lengths(self) -> Places:
        """How many values each name has."""
        return tuple(map(len, self.values.values()))

    @property
    def total(self) -> int:
        """How many combinations there are."""
        return math.prod(self.lengths)

    @property
    def first(self) -> dict[str, object]:
        """The smallest combination."""
        return self.at((0,) * len(self.values))

    def at(self, places: Places) -> dict[str, object]:
        """Return the values of a combination by their names."""
        return {name: values[place] for (name, values), place in zip(self.values.items(), places, strict=True)}


@dataclass(slots=True)
class Search:
    """Says which combination to run next.

    All of them, from small to large, where they are not too many. Else the corners and an even sample. Where one breaks,
    smaller values of one name at a time, as far as that breaks too; then all other combinations that are smaller.

    Attributes:
        broken: by combination run, what broke in it.
    """

    sweep: Sweep
    broken: dict[Places, frozenset[str]] = field(default_factory=dict)
    _sample: tuple[Places, ...] = ()

    def __post_init__(self) -> None:
        if self.sweep.total > self.sweep.most:
            self._sample = sample(self.sweep.lengths, self.sweep.most)

    def next(self, wanted: Collection[str]) -> Places | None:
        """Return the combination to run next, None where there is none or enough were run.

        Args:
            wanted: of what the smallest breaking combination is looked for.
        """
        if len(self.broken) >= self.sweep.most:
            return None
        return next((places for places in self._candidates(wanted) if places not in self.broken), None)

    def smallest(self, what: str) -> Places | None:
        """Return the smallest combination run in which that broke."""
        return min((places for places, broken in self.broken.items() if what in broken), key=size, default=None)

    def is_smallest(self, found: Places) -> bool:
        """Say whether every combination that is smaller has been run."""
        smaller = sum(size(places) < size(found) for places in self.broken)
        return next(p for number, p in enumerate(ascending(self.sweep.lengths)) if number >= smaller) == found

    def _candidates(self, wanted: Collection[str]) -> Iterator[Places]:
        if not self._sample:
            yield from ascending(self.sweep.lengths)
            return
        found = {what: places for what in wanted if (places := self.smallest(what)) is not None}
        for what, places in found.items():
            yield from lower(places, [one for one, broken in self.broken.items() if what not in broken])
        if len(found) < len(wanted):
            yield from self._sample
        for places in found.values():
            yield from _until(places, ascending(self.sweep.lengths))


def ascending(lengths: Places) -> Iterator[Places]:
    """Yield all combinations from small to large, one by one: there may be very many."""
    for total in range(sum(lengths) - len(lengths) + 1):
        yield from _with_sum(total, lengths)


def _with_sum(total: int, lengths: Places) -> Iterator[Places]:
    if not lengths:
        yield ()
        return
    first, *others = lengths
    room = sum(others) - len(others)
    for place in range(max(0, total - room), min(first - 1, total) + 1):
        for rest in _with_sum(total - place, tuple(others)):
            yield (place, *rest)


def _until(end: Places, combinations: Iterable[Places]) -> Iterator[Places]:
    for places in combinations:
        if size(places) >= size(end):
            return
        yield places


def lower(places: Places, held: Collection[Places]) -> Iterator[Places]:
    """Yield, for each name, the combination with a smaller value of it that is to be run next.

    The smallest value comes first, then the middle between the value that broke and one that held with no smaller values of
    the other names: if larger values break, that takes the fewest runs. If not, the values next to it are run in the end.

    Args:
        places: the smallest that broke.
        held: those that did not break.
    """
    lows = [max((one[axis] for one in held if _is_below(one, places, axis)), default=-1) for axis in range(len(places))]
    for axis, (low, place) in enumerate(zip(lows, places, strict=True)):
        if low + 1 < place:
            yield _with(places, axis, 0 if low < 0 else (low + place) // 2)
    yield from (_with(places, axis, place - 1) for axis, place in enumerate(places) if place)


def _is_below(one: Places, places: Places, axis: int) -> bool:
    return one[axis] < places[axis] and all(
        a >= b for n, (a, b) in enumerate(zip(one, places, strict=True)) if n != axis
    )


def _with(places: Places, axis: int, place: int) -> Places:
    return (*places[:axis], place, *places[axis + 1 :])


def sample(lengths: Places, number: int) -> tuple[Places, ...]:
    """Return so many of more combinations: first corners, half of them at most, then others that are spread evenly."""
    corners = sorted(product(*(sorted({0, length - 1}) for length in lengths)), key=size)
    if len(corners) > (half := max(1, number // 2)):
        corners = [*corners[: half - 1], corners[-1]]
    found = dict.fromkeys(corners)
    for places in _spread(lengths):
        if len(found) >= number:
            break
        found.setdefault(places)
    return tuple(found)


def _spread(lengths: Places) -> Iterator[Places]:
    """Yield combinations evenly and without end, by the sequence of fractions that fills a cube of as many dimensions best."""
    ratio = 2.0
    for _ in range(50):  # the positive root of x ** (d + 1) == x + 1
        ratio = (1 + ratio) ** (1 / (len(lengths) + 1))
    number = 0
    while True:
        number += 1
        fractions = ((0.5 + number * ratio ** -(axis + 1)) % 1 for axis in range(len(lengths)))
        yield tuple(int(fraction * length) for fraction, length in zip(fractions, lengths, strict=True))
