"""What must be known of the markers in every pytest run: their names. The contracts behind them load when one is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

PREFIX: Final = "ckpt_"
#: The marker of the default set.
DEFAULT_SET: Final = "contract"
#: The marker that varies the settings of a job.
SWEEP: Final = "sweep"
#: The contracts of this package, as `pytest_ckpt.contracts.builtin` has them.
BUILTIN: Final = (
    *("final_step", "steps", "count", "aligned", "logged", "retention", "best", "complete", "loadable", "faithful"),
    *(
        "compact",
        "resumable",
        "stable_schedule",
        "latest",
        "relocatable",
        "pure",
        "on_error",
        "crash_safe",
        "power_safe",
        "disk_full",
        "preemptible",
        "async_durable",
    ),
)


def contract_marks(item: pytest.Item) -> list[pytest.Mark]:
    """Return the contract markers that apply to a test, the nearest first; nearest are those of a set of parameters."""
    own = parameter_marks(item)
    marks = [mark for mark in item.iter_markers() if _is_contract(mark)]
    return [*own, *(mark for mark in marks if not any(mark is other for other in own))]


def parameter_marks(item: pytest.Item) -> list[pytest.Mark]:
    """Return the contract markers of an item's set of parameters."""
    callspec = getattr(item, "callspec", None)
    return [mark for mark in getattr(callspec, "marks", ()) if _is_contract(mark)]


def _is_contract(mark: pytest.Mark) -> bool:
    return mark.name.startswith(PREFIX) and mark.name != PREFIX + SWEEP


def sweep_mark(item: pytest.Item) -> pytest.Mark | None:
    """Return the marker by which a test's job is run with many settings; the nearest counts."""
    return item.get_closest_marker(PREFIX + SWEEP)
