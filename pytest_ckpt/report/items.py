"""What test items came to, in the words that all reports use, and the items of one test put together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.records.verdict import ItemReport, JobResult, Timeline

#: What a report calls the result of an item, in the order in which results are counted.
Word: TypeAlias = Literal["BROKEN", "error", "undecided", "XPASS", "ok", "xfail", "n/a", "skipped"]
WORDS: Final[tuple[Word, ...]] = get_args(Word)


def word(item: ItemReport) -> Word:
    """Return the word for what an item came to."""
    status = item.verdict.status if item.verdict is not None else ""
    if (item.outcome, status) == ("failed", "held"):  # to pytest, a strict xfail that held is a failure
        return "XPASS"
    by_outcome: dict[str, Word] = {"passed": "ok", "xfailed": "xfail", "xpassed": "XPASS", "error": "error"}
    by_status: dict[str, Word] = {"violated": "BROKEN", "inconclusive": "undecided", "not_applicable": "n/a"}
    without_verdict: Word = "skipped" if item.outcome == "skipped" else "error"
    return by_outcome.get(item.outcome) or by_status.get(status, without_verdict)


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
    """Count the items by their word; a word that does not occur is left out."""
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
    def file(self) -> str:
        """The file of the test."""
        return self.test.partition("::")[0]

    @property
    def name(self) -> str:
        """The test's name within its file."""
        return self.test.partition("::")[2] or self.test

    @property
    def job(self) -> JobResult | None:
        """What the job came to; None if no item got so far."""
        return next((item.job for item in self.items if item.job is not None), None)

    @property
    def timeline(self) -> Timeline | None:
        """The steps of the job, if it could be run."""
        return self.job.timeline if self.job is not None else None

    @property
    def failed(self) -> bool:
        """Whether one of its items makes the session fail."""
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
