"""Regression tests for the save logic of training repositories.

The public names are loaded when they are first used: importing this package imports no framework and takes no time that a
test session would notice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt._version import __version__

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Contract, Evidence
    from pytest_ckpt.errors import ContractViolation, HarnessError, InvalidArgument
    from pytest_ckpt.fixtures import CkptRun
    from pytest_ckpt.frameworks.protocol import Found, Framework, Observer
    from pytest_ckpt.lab import Lab
    from pytest_ckpt.records.checkpoint import Checkpoint, Content
    from pytest_ckpt.records.experiment import Experiment
    from pytest_ckpt.records.run import FrameworkFacts, Outcome, RunRecord
    from pytest_ckpt.records.state import Reading, StepRecord
    from pytest_ckpt.records.verdict import Finding, Verdict
    from pytest_ckpt.runs.job import Job

_HOMES: Final = {
    "Checkpoint": "pytest_ckpt.records.checkpoint",
    "CkptRun": "pytest_ckpt.fixtures",
    "Content": "pytest_ckpt.records.checkpoint",
    "Contract": "pytest_ckpt.contracts.base",
    "ContractViolation": "pytest_ckpt.errors",
    "Evidence": "pytest_ckpt.contracts.base",
    "Experiment": "pytest_ckpt.records.experiment",
    "Finding": "pytest_ckpt.records.verdict",
    "Found": "pytest_ckpt.frameworks.protocol",
    "Framework": "pytest_ckpt.frameworks.protocol",
    "FrameworkFacts": "pytest_ckpt.records.run",
    "HarnessError": "pytest_ckpt.errors",
    "InvalidArgument": "pytest_ckpt.errors",
    "Job": "pytest_ckpt.runs.job",
    "Lab": "pytest_ckpt.lab",
    "Observer": "pytest_ckpt.frameworks.protocol",
    "Outcome": "pytest_ckpt.records.run",
    "Reading": "pytest_ckpt.records.state",
    "RunRecord": "pytest_ckpt.records.run",
    "StepRecord": "pytest_ckpt.records.state",
    "Verdict": "pytest_ckpt.records.verdict",
}

__all__ = [
    "Checkpoint",
    "CkptRun",
    "Content",
    "Contract",
    "ContractViolation",
    "Evidence",
    "Experiment",
    "Finding",
    "Found",
    "Framework",
    "FrameworkFacts",
    "HarnessError",
    "InvalidArgument",
    "Job",
    "Lab",
    "Observer",
    "Outcome",
    "Reading",
    "RunRecord",
    "StepRecord",
    "Verdict",
    "__version__",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
