"""What test items came to, in the words that all reports use, and the items of one test put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.records.verdict import ItemReport, JobResult

#: What a report calls the result of an item, the most urgent first.
Word: TypeAlias = Literal["BROKEN", "error", "undecided", "XPASS", "xfail", "skipped", "n/a", "ok"]
WORDS: Final[tuple[Word, ...]] = get_args(Word)


def word(item: ItemReport) -> Word:
    """Return the word for what an item came to."""
    status = item.verdict.status if item.verdict is not None else ""
    match item.outcome, status:
        case "passed", _:
            return "ok"
        case "xfailed", _:
            return "xfail"
        case ("xpassed", _) | ("failed", "held"):  # a strict xfail that held is a failure to pytest
            return "XPASS"
        case "failed", "violated":
            return "BROKEN"
        case (("failed" | "skipped"), "inconclusive"):
            return "undecided"
        case "skipped", _:
            return "n/a" if status == "not_applicable" else "skipped"
        case _:
            return "error"


def sentence(item: ItemReport) -> str:
    """Return in one line why an item came to what it did; empty if nothing is known."""
    if item.verdict is not None:
        return item.verdict.sentence
    error = item.job.error if item.job is not None else ""
    return next(iter((error or item.reason).splitlines()), "")


def has_failed(item: ItemReport) -> bool:
    """Say whether an item makes the session fail."""
    return item.outcome in {"failed", "error"}


def count(items: Iterable[ItemReport]) -> Mapping[Word, int]:
    """Count the items by their word, the most urgent first; a word that does not occur is left out."""
    counter = Counter(map(word, items))
    return {each: counter[each] for each in WORDS if counter[each]}


@dataclass(frozen=True, slots=True)
class Row:
    """The items of one test, which share one job.

    Attributes:
        test: the node id without the contract.
        items: one per contract, in their order.
    """

    test: str
    items: tuple[ItemReport, ...]

    @property
    def job(self) -> JobResult | None:
        """What the job came to; None if no item got so far."""
        return next((item.job for item in self.items if item.job is not None), None)

    @property
    def failed(self) -> bool:
        """Whether one of the items makes the session fail."""
        return any(map(has_failed, self.items))

    @property
    def words(self) -> set[Word]:
        """The words of its items."""
        return set(map(word, self.items))


def by_test(items: Sequence[ItemReport]) -> list[Row]:
    """Return a row for each test, in the order of their first items."""
    tests: dict[str, list[ItemReport]] = {}
    for item in items:
        tests.setdefault(_test(item), []).append(item)
    return [Row(test, tuple(own)) for test, own in tests.items()]


def _test(item: ItemReport) -> str:
    """Return the node id without the contract, which an item whose fixtures failed has to be asked for."""
    if item.job is not None:
        return item.job.test
    for suffix, end in ((f"-{item.contract}]", "]"), (f"[{item.contract}]", "")):
        if item.nodeid.endswith(suffix):
            return item.nodeid.removesuffix(suffix) + end
    return item.nodeid
