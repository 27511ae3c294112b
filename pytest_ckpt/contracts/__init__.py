"""What must hold of the checkpoints of a job: pure functions over records, one module a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ckpt.contracts.base import Contract


def builtin() -> tuple[type[Contract], ...]:
    """Return the kinds of contracts that this package has, in the order in which reports show them."""
    from pytest_ckpt.contracts.alignment import Aligned
    from pytest_ckpt.contracts.best_model import Best  # contracts build on each other's modules
    from pytest_ckpt.contracts.completeness import Complete
    from pytest_ckpt.contracts.contents import Faithful
    from pytest_ckpt.contracts.crashing import CrashSafe, PowerSafe
    from pytest_ckpt.contracts.durable import AsyncDurable
    from pytest_ckpt.contracts.failing import OnError
    from pytest_ckpt.contracts.filling import DiskFull
    from pytest_ckpt.contracts.latest import Latest
    from pytest_ckpt.contracts.loading import Loadable
    from pytest_ckpt.contracts.logging_saves import Logged
    from pytest_ckpt.contracts.moving import Relocatable
    from pytest_ckpt.contracts.preempting import Preemptible
    from pytest_ckpt.contracts.purity import Pure
    from pytest_ckpt.contracts.resuming import Resumable
    from pytest_ckpt.contracts.retention import Retention
    from pytest_ckpt.contracts.saving import Count, FinalStep
    from pytest_ckpt.contracts.scheduling import Steps
    from pytest_ckpt.contracts.size import Compact
    from pytest_ckpt.contracts.stability import StableSchedule

    return (
        FinalStep,
        Steps,
        Count,
        Aligned,
        Logged,
        Retention,
        Best,
        Complete,
        Loadable,
        Faithful,
        Compact,
        Resumable,
        StableSchedule,
        Latest,
        Relocatable,
        Pure,
        OnError,
        CrashSafe,
        PowerSafe,
        DiskFull,
        Preemptible,
        AsyncDurable,
    )
