"""From a test's result to the outcome of an item: what pytest is to show of a verdict, and of a job that did not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from pytest_ckpt.errors import ContractViolation, HarnessError

if TYPE_CHECKING:
    from pytest_ckpt.records.verdict import JobResult, Verdict
    from pytest_ckpt.shell.marks import Asked

#: What `pytest.fail` raises; pytest gives it no other public name.
_Failed: Any = pytest.fail.Exception
_SEE_FIRST: Final = "the whole error is shown with the contract of this test that was asked first"


def raise_if_failed(result: JobResult, *, told: bool) -> None:
    """Raise what keeps a job's contracts from being judged.

    Args:
        told: whether another item of the test has shown the whole error already.

    Raises:
        HarnessError: the job did not run.
        pytest.skip.Exception: the job skipped itself.
    """
    if result.skipped:
        pytest.skip(result.skipped)
    if result.error:
        first, more, _ = result.error.partition("\n")
        raise JobFailure(f"{first}\n  {_SEE_FIRST}" if told and more else result.error)


class JobFailure(HarnessError, _Failed):  # type: ignore[misc]
    """A job that does not run, shown by pytest as its message alone."""

    def __init__(self, message: str) -> None:
        _Failed.__init__(self, message, pytrace=False)

    def __str__(self) -> str:
        return str(self.msg)


class ContractFailure(ContractViolation, _Failed):  # type: ignore[misc]
    """A broken or undecided contract, shown by pytest as its message alone: the traceback would be ours."""

    def __init__(self, message: str, verdict: Verdict) -> None:
        _Failed.__init__(self, message, pytrace=False)
        self.verdict = verdict

    def __str__(self) -> str:
        return str(self.msg)


# Short names in pytest's summary, which prints the module of every exception that is not built in.
for _kind, _name in ((ContractFailure, "ContractViolation"), (JobFailure, "HarnessError")):
    _kind.__module__, _kind.__qualname__ = "builtins", _name


def conclude(result: JobResult, asked: Asked, nodeid: str) -> None:
    """End an item as its contract's verdict says.

    Raises:
        ContractFailure: the contract is broken, or it was marked and could not be decided.
        pytest.skip.Exception: it does not apply, or only the default set asked for it and it could not be decided.
        HarnessError: the job was run without this contract.
    """
    verdict = result.verdict_of(asked.contract.name)
    if verdict is None:
        known = ", ".join(v.contract for v in result.verdicts)
        message = f"no verdict on {asked.contract.name} of {result.test}; its job was run for {known}"
        raise HarnessError(message)
    if verdict.status == "not_applicable":
        pytest.skip(f"not applicable: {verdict.sentence}")
    if verdict.status == "inconclusive" and not asked.marked:
        pytest.skip(f"inconclusive: {verdict.sentence}")
    if verdict.status != "held":
        from pytest_ckpt.report.text import explain  # needed for failures only

        raise ContractFailure(explain(verdict, result, nodeid), verdict)
