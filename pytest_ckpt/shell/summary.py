"""What a session says about checkpoint contracts: the section at its end and the report file."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_ckpt.errors import HarnessError
from pytest_ckpt.records.verdict import ItemReport, JobResult
from pytest_ckpt.report import junit, terminal, workflow
from pytest_ckpt.settings import settings_key
from pytest_ckpt.shell import report_files
from pytest_ckpt.shell.names import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pytest_ckpt.records.verdict import Verdict

_PACKAGE: Final = Path(__file__).resolve().parents[1]
#: The attribute of a report that carries what an item came to; JSON text, as it crosses between processes.
_ATTRIBUTE: Final = "ckpt"
#: How the message of a contract that does not hold begins.
_RAISED: Final = "ContractViolation: "


def annotate(item: pytest.Item, report: pytest.TestReport, contract: str, result: JobResult | None) -> None:
    """Put what an item came to on its report."""
    if (report.when == "setup" and report.passed) or (report.when == "teardown" and not report.failed):
        return
    _locate(report, item)
    entry = ItemReport(
        nodeid=report.nodeid,
        contract=contract,
        outcome=_outcome(report),
        reason=_reason(report),
        verdict=result.verdict_of(contract) if result is not None else None,
        job=None if result is None else replace(result, sections=(), verdicts=()),
    )
    _shorten(report, entry.verdict)
    setattr(report, _ATTRIBUTE, json.dumps(entry.to_json()))
    others = [(name, value) for name, value in item.user_properties if not name.startswith(PREFIX)]
    item.user_properties[:] = [*others, *junit.properties(entry)]  # junit-xml takes them from the teardown's report
    report.user_properties = list(item.user_properties)
    if report.failed and result is not None:
        report.sections += [(title, text) for title, text in result.sections]


def _locate(report: pytest.TestReport, item: pytest.Item) -> None:
    """Let what we raise be shown at the test, not at a line of ours."""
    path, line, _ = item.reportinfo()
    crash = getattr(report.longrepr, "reprcrash", None)
    if isinstance(report.longrepr, tuple) and _is_ours(report.longrepr[0]):
        report.longrepr = (str(path), (line or 0) + 1, report.longrepr[2])
    elif crash is not None and _is_ours(crash.path):
        crash.path, crash.lineno = str(path), (line or 0) + 1


def _shorten(report: pytest.TestReport, verdict: Verdict | None) -> None:
    """Let the short summary, and the message in junit-xml, say what is broken; on CI pytest prints all there is a second time."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if report.failed and verdict is not None and crash is not None and crash.message.startswith(_RAISED):
        how = "broken" if verdict.status == "violated" else "inconclusive"
        crash.message = f"{verdict.contract} {how}: {verdict.sentence}"


def _is_ours(path: str) -> bool:
    return Path(path).is_relative_to(_PACKAGE)


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xpassed" if report.passed else "xfailed"
    if report.failed and report.when != "call":
        return "error"
    return report.outcome


def _reason(report: pytest.TestReport) -> str:
    xfail = getattr(report, "wasxfail", "")
    if xfail:
        return str(xfail)
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None) if report.failed else None
    return str(crash.message) if crash is not None else ""


class Summary:
    """Collects the items' reports and shows them; registered only where contracts are switched on."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._items: dict[str, ItemReport] = {}
        self._expected: set[str] = set()
        self._crashed: set[str] = set()
        self._places: dict[str, tuple[str, int]] = {}
        self._started = time.time()
        self._unwritten = ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember which items were selected."""
        from pytest_ckpt.shell.known import is_contract_item  # the plugin registers this class

        self._expected |= {item.nodeid for item in session.items if is_contract_item(item)}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Remember which items the workers have selected: all of them the same, of which the names are known here."""
        from pytest_ckpt.shell.known import registry_of  # as above

        ends = tuple(f"{before}{name}]" for name in registry_of(self._config).kinds for before in "[-")
        self._expected |= {nodeid for nodeid in ids if nodeid.partition("@")[0].endswith(ends)}  # @: a group of workers

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect an item's report, in this process or from a worker."""
        text = getattr(report, _ATTRIBUTE, None)
        if text is None and report.when == "call":
            self._expected.discard(report.nodeid)  # another plugin's item whose name looks like one of ours
        elif text is None and report.when not in {"setup", "call", "teardown"}:  # so pytest-xdist reports a crash
            self._crashed.add(report.nodeid)
        if text is not None:
            item = ItemReport.from_json(json.loads(text))
            self._places[item.nodeid] = report_files.place_of(report, self._config.rootpath)
            known = self._items.get(item.nodeid)
            if known is None or known.outcome != "failed":  # an error in the teardown does not mend a broken contract
                self._items[item.nodeid] = item

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the section, in the controlling process only."""
        if self._is_worker() or self._config.option.collectonly or not (self._items or self._expected):
            return
        width = terminalreporter._tw.fullwidth  # noqa: SLF001 - the public class has no width
        items = self._in_order()
        if self._config.get_verbosity() < 0:
            terminalreporter.write_line(terminal.quiet(items))
        else:
            terminalreporter.section("checkpoint contracts")
            for line, markup in terminal.section(items, width):
                terminalreporter.write_line(line, **markup)
        for line in self._missing_lines():
            terminalreporter.write_line(line, yellow=True)
        path = self._config.stash[settings_key].report
        if self._unwritten:
            terminalreporter.write_line(self._unwritten, red=True)
        elif path is not None:
            terminalreporter.write_line(f"ckpt report: {path}")
        for line in workflow.commands(items, self._places) if report_files.is_annotated(path) else ():
            terminalreporter.write_line(line)

    def pytest_sessionfinish(self) -> None:
        """Write the report file, in the controlling process only."""
        path = self._config.stash[settings_key].report
        if path is None or self._is_worker():
            return
        try:
            report_files.write(path, self._in_order(), self._missing(), self._started)
        except HarnessError as error:  # raised here, it would end pytest before anything is shown
            self._unwritten = str(error)

    def _in_order(self) -> Sequence[ItemReport]:
        return list(self._items.values())

    def _missing(self) -> list[str]:
        return sorted(self._expected - set(self._items))

    def _missing_lines(self) -> Iterable[str]:
        missing = set(self._missing())
        for nodeids, why in (
            (missing & self._crashed, "a worker of pytest-xdist crashed in them"),
            (missing - self._crashed, "the session ended before them"),
        ):
            if nodeids:
                contracts = "1 selected contract" if len(nodeids) == 1 else f"{len(nodeids)} selected contracts"
                yield f"{contracts} came to no verdict: {why}, first {min(nodeids)}"

    def _is_worker(self) -> bool:
        return hasattr(self._config, "workerinput")


__all__ = ["Summary", "annotate"]
