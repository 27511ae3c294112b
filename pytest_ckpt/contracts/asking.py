"""Asking a contract what it needs and what it concludes; one that fails at that is told so, and costs no other its verdict."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from pytest_ckpt.contracts import rehearsing
from pytest_ckpt.errors import HarnessError
from pytest_ckpt.records.verdict import Finding, Status, Verdict, inconclusive

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Contract, Evidence
    from pytest_ckpt.records.experiment import Experiment

#: Lines of a traceback that are shown: the place and the error.
_LINES: Final = 4
_OURS: Final = "pytest_ckpt."


@dataclass(slots=True)
class Asking:
    """Asks contracts, and keeps the errors of those that failed while they planned, by their names."""

    _errors: dict[str, Exception] = field(default_factory=dict)

    def planned(self, contract: Contract, evidence: Evidence) -> list[Experiment]:
        """Return the experiments that a contract needs."""
        try:
            return list(rehearsing.planned(contract, evidence))
        except (HarnessError, OSError):  # of the runs, not of the contract
            raise
        except Exception as error:  # noqa: BLE001 - contracts of users may raise anything
            self._errors[contract.name] = error
            return []

    def verdict(self, contract: Contract, evidence: Evidence) -> Verdict:
        """Return the verdict of a contract."""
        if (failed := self._errors.get(contract.name)) is not None:
            return inconclusive(contract.name, _failed(contract, failed))
        try:
            found: object = rehearsing.verdict(contract, evidence)
        except (HarnessError, OSError):
            raise
        except Exception as error:  # noqa: BLE001
            return inconclusive(contract.name, _failed(contract, error))
        if not isinstance(found, Verdict) or found.status not in get_args(Status):
            return inconclusive(contract.name, _no_verdict(found))
        return found


def _failed(contract: Contract, error: Exception) -> Finding:
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()[-_LINES:]
    ours = type(contract).__module__.startswith(_OURS)
    return Finding(
        title=f"the contract itself failed: {''.join(traceback.format_exception_only(error)).strip()}",
        rows=tuple(("", line) for line in lines),
        cause="the error is in pytest-ckpt and says nothing about the job."
        if ours
        else "the error is in the code of the contract and says nothing about the job.",
        fix="report it, with the traceback." if ours else "mend its plan or its judge.",
    )


def _no_verdict(found: object) -> Finding:
    what = f"a verdict of status {found.status!r}" if isinstance(found, Verdict) else repr(found)
    return Finding(
        title=f"the contract's judge returned {what}",
        fix=f"return a pytest_ckpt.Verdict of status {', '.join(get_args(Status))}.",
    )
