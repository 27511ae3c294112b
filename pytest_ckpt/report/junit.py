"""An item's properties for junit-xml: text only, since they also cross between the processes of pytest-xdist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_ckpt.report.items import sentence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytest_ckpt.records.verdict import ItemReport


def properties(item: ItemReport) -> list[tuple[str, str]]:
    """Return names and values; what is not known of an item is left out.

    `ckpt_status` is the verdict's, or pytest's word for the outcome of an item without one.
    """
    return [(f"ckpt_{name}", text) for name, text in _properties(item) if text]


def _properties(item: ItemReport) -> Iterator[tuple[str, str]]:
    yield "contract", item.contract
    yield "status", item.verdict.status if item.verdict is not None else item.outcome
    yield "sentence", sentence(item)
    if item.job is not None and item.job.timeline is not None:
        timeline = item.job.timeline
        yield "steps", str(timeline.steps)
        yield "steps_saved", _listed(timeline.saved)
        yield "steps_on_disk", _listed(timeline.kept)


def _listed(steps: Iterable[int]) -> str:
    return " ".join(map(str, steps))
