"""A job that is run with many settings: one after the other, and what they came to in one result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pytest_ckpt.contracts.sweeping import Outcome, combined, reported
from pytest_ckpt.experiments.combinations import Search, size
from pytest_ckpt.records.verdict import JobResult
from pytest_ckpt.shell.sweeps import text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pytest_ckpt.experiments.combinations import Places, Sweep
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.verdict import Verdict


class Attempt(Protocol):
    """Runs a job with some settings and judges it."""

    def __call__(self, settings: Mapping[str, object], number: int) -> tuple[JobResult, Lab]:
        """Return what it came to, and the lab that has the evidence."""


@dataclass(slots=True)
class SweptJob:
    """Runs the job of a test with the combinations of a sweep, each once for all contracts.

    Attributes:
        contracts: their names.
        keep: whether the evidence of all combinations is kept; otherwise it is that of those which are reported.
    """

    test: str
    contracts: Sequence[str]
    sweep: Sweep
    attempt: Attempt
    keep: bool
    _results: dict[Places, JobResult] = field(default_factory=dict)
    _labs: dict[Places, Lab] = field(default_factory=dict)

    def run(self) -> JobResult:
        """Run the combinations and return what they came to together; one whose job does not run ends it."""
        search = Search(self.sweep)
        while (places := search.next(self.contracts)) is not None:
            self._leave_as_found()
            result, lab = self.attempt(self.sweep.at(places), len(self._results) + 1)
            self._results[places], self._labs[places] = result, lab
            search.broken[places] = frozenset(v.contract for v in result.verdicts if v.status == "violated")
            if result.error:
                return self._failed(places)
            self._drop_evidence()
        return self._together(search)

    # -- evidence ----------------------------------------------------------------------------------------------------

    def _leave_as_found(self) -> None:
        """Make the job's directory what it was before the first run."""
        for lab in list(self._labs.values())[-1:]:
            lab.leave(0)

    def _drop_evidence(self) -> None:
        """Forget what was seen of combinations that are not reported, as far as is known by now; but for the last one."""
        wanted = {*self._reported().values(), next(reversed(self._results))}
        for places in self._labs.keys() - wanted:
            lab = self._labs.pop(places)
            if not self.keep:
                lab.close()

    def _reported(self) -> dict[str, Places]:
        """Return the combination that the verdict on each contract is on, where it is on one."""
        found = {}
        for contract in self.contracts:
            outcomes = self._outcomes(contract)
            shown = reported(list(outcomes.values()))
            if shown is not None:
                found[contract] = next(places for places, outcome in outcomes.items() if outcome is shown)
        return found

    # -- the result --------------------------------------------------------------------------------------------------

    def _together(self, search: Search) -> JobResult:
        results = list(self._results.values())
        if all(result.skipped for result in results):
            return replace(results[0], skipped=f"{text(self.sweep.first)}: {results[0].skipped}")
        shown = self._reported()
        verdicts = {contract: self._verdict(contract, search, shown.get(contract)) for contract in self.contracts}
        urgent = sorted(shown, key=lambda contract: verdicts[contract].status != "violated")
        kept = tuple(dict.fromkeys(shown[contract] for contract in urgent))
        if kept:
            self._labs[kept[0]].leave()
        self._close(but=kept)
        return JobResult(
            test=self.test,
            verdicts=tuple(verdicts.values()),
            timeline=verdicts[urgent[0]].timeline if urgent else None,
            frameworks=max((result.frameworks for result in results), key=len),
            experiments=tuple(self._experiments()),
            sections=tuple(section for places in kept for section in self._results[places].sections),
            kept_dirs=tuple(map(self._evidence, kept)),
            seconds=sum(result.seconds for result in results),
        )

    def _verdict(self, contract: str, search: Search, shown: Places | None) -> Verdict:
        skipped = sum(bool(result.skipped) for result in self._results.values())
        all_smaller = shown is None or search.is_smallest(shown)
        outcomes = list(self._outcomes(contract).values())
        return combined(outcomes, total=self.sweep.total, skipped=skipped, all_smaller=all_smaller)

    def _outcomes(self, contract: str) -> dict[Places, Outcome]:
        """Return what a contract came to, from the smallest combination to the largest."""
        found = {}
        for places in sorted(self._results, key=size):
            result = self._results[places]
            verdict = result.verdict_of(contract)
            if verdict is not None:
                found[places] = Outcome(combination=self._text(places), verdict=verdict, timeline=result.timeline)
        return found

    def _experiments(self) -> Iterator[tuple[str, ...]]:
        for places, result in self._results.items():
            yield from ((f"{self._text(places)}: {title}", seconds) for title, seconds in result.experiments)

    def _evidence(self, places: Places) -> str:
        of = self._text(places).replace(": ", ":")  # which divides the directory from what it holds
        return f"{self._labs[places].folder}: journals and copies of checkpoints of the runs with {of}"

    def _text(self, places: Places) -> str:
        return text(self.sweep.at(places))

    def _failed(self, places: Places) -> JobResult:
        """Return that the job does not run with a combination: nothing is known of its checkpoints then."""
        self._close(but=(places,))
        result = self._results[places]
        more = (
            f"  {len(self._results)} of {self.sweep.total} combinations were run; one that makes no sense can be left out by "
            "pytest.skip(...) in the test"
        )
        first, *others = result.error.splitlines()
        return replace(result, error="\n".join([f"{self._text(places)}: {first}", *others, more]))

    def _close(self, *, but: Collection[Places]) -> None:
        for places in [] if self.keep else self._labs.keys() - set(but):
            self._labs[places].close()
