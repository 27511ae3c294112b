"""Which combinations of a sweep are run, in which order, and how the smallest that breaks is found among too many."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_ckpt.experiments.combinations import Search, Sweep, ascending, lower, sample, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt.experiments.combinations import Places

lengths = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


def search(lengths: Places, most: int, breaks: Callable[[Places], bool]) -> tuple[list[Places], Search]:
    """Run a search to its end, for one contract; return what it had run, in order."""
    found = Search(Sweep(values={f"arg{axis}": range(length) for axis, length in enumerate(lengths)}, most=most))
    while (places := found.next(["final_step"])) is not None:
        assert places not in found.broken
        found.broken[places] = frozenset({"final_step"} if breaks(places) else ())
    return list(found.broken), found


@settings(deadline=None, max_examples=50)
@given(lengths)
def test_combinations_go_from_small_to_large_and_none_is_left_out(lengths: tuple[int, ...]) -> None:
    """By the sum of the places, then in the order of numbers."""
    assert sorted(product(*map(range, lengths)), key=size) == list(ascending(lengths))


def test_as_many_combinations_as_one_likes_are_not_made_beforehand() -> None:
    """The first of a thousand billion come at once."""
    assert [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)] == list(islice(ascending((1000, 1000, 1000, 1000)), 3))


@settings(deadline=None, max_examples=50)
@given(lengths, st.integers(0, 5))
def test_all_are_run_from_small_to_large_where_they_are_not_too_many(lengths: tuple[int, ...], room: int) -> None:
    """So the first that breaks is the smallest."""
    total = len(list(product(*map(range, lengths))))
    run, found = search(lengths, total + room, lambda places: sum(places) % 3 == 1)
    assert list(ascending(lengths)) == run
    smallest = found.smallest("final_step")
    assert smallest is None or found.is_smallest(smallest)


@settings(deadline=None, max_examples=50)
@given(lengths, st.data())
def test_a_sample_has_the_first_and_the_last_and_each_once(lengths: tuple[int, ...], data: st.DataObject) -> None:
    """It is as large as asked for."""
    total = len(list(product(*map(range, lengths))))
    number = data.draw(st.integers(1, total))
    found = sample(lengths, number)
    assert number == len(set(found)) == len(found)
    assert all(place < length for places in found for place, length in zip(places, lengths, strict=True))
    assert number < 4 or {(0,) * len(lengths), tuple(length - 1 for length in lengths)} <= set(found)


def test_a_sample_is_spread_evenly() -> None:
    """Each quarter of a square has its share."""
    found = sample((100, 100), 100)
    quarters = [sum((x < 50) == low and (y < 50) == left for x, y in found) for low in (0, 1) for left in (0, 1)]
    assert all(22 <= quarter <= 28 for quarter in quarters), quarters


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([], [(0, 2), (9, 0), (8, 2), (9, 1)]),
        ([(0, 2)], [(4, 2), (9, 0), (8, 2), (9, 1)]),
        ([(0, 2), (4, 3), (9, 0)], [(6, 2), (9, 1), (8, 2), (9, 1)]),
        ([(6, 1)], [(0, 2), (9, 0), (8, 2), (9, 1)]),
        ([(8, 3), (9, 1)], [(8, 2), (9, 1)]),
    ],
)
def test_a_smaller_value_of_one_name_halves_the_distance(held: list[Places], expected: list[Places]) -> None:
    """To a value that held, once the smallest was run; then come the values next to the one that broke."""
    assert expected == list(lower((9, 2), held))


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 99), st.integers(0, 99))
def test_the_corner_from_which_on_all_breaks_is_found_among_ten_thousand(x: int, y: int) -> None:
    """Halving takes few runs; not more are made than are allowed."""
    run, found = search((100, 100), 50, lambda places: places[0] >= x and places[1] >= y)
    assert len(run) <= 50
    assert (x, y) == found.smallest("final_step")


@pytest.mark.parametrize("most", [20, 40])
def test_nothing_that_breaks_is_passed_over_while_there_is_room(most: int) -> None:
    """After the way down, smaller combinations are run from the smallest on, as many as are allowed."""
    run, found = search((10, 10), most, lambda places: places not in {(0, 0), (0, 1), (1, 0)} and sum(places) % 2 == 0)
    assert (0, 2) == found.smallest("final_step")
    assert found.is_smallest((0, 2))
    assert len(run) <= most


def test_a_smaller_one_that_was_not_run_is_not_denied() -> None:
    """Where the search ends too early, it is not said to have found the smallest."""
    _, found = search((1000, 1000), 5, lambda places: sum(places) > 900)
    smallest = found.smallest("final_step")
    assert smallest is not None
    assert not found.is_smallest(smallest)


def test_the_smallest_is_looked_for_of_each_contract() -> None:
    """Two that break at different combinations are both followed."""
    found = Search(Sweep(values={"a": range(50), "b": range(50)}, most=60))
    while (places := found.next(["one", "other"])) is not None:
        broken = {"one"} if places[0] >= 7 else set()
        found.broken[places] = frozenset(broken | ({"other"} if places[1] >= 9 else set()))
    assert (7, 0) == found.smallest("one")
    assert (0, 9) == found.smallest("other")
