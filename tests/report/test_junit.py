"""Properties for junit-xml: short texts that tell an item's verdict without parsing its message."""

from __future__ import annotations

from dataclasses import replace

from inline_snapshot import snapshot

from pytest_ckpt.records.verdict import ItemReport, Timeline
from pytest_ckpt.report import junit
from report.samples import BROKEN, HOLDS, JOB, TEST, failed_job, item


def test_properties_tell_the_verdict_and_the_steps() -> None:
    """They name the contract, its verdict and the steps of the job."""
    assert snapshot(
        [
            ("ckpt_contract", "resumable"),
            ("ckpt_status", "violated"),
            ("ckpt_sentence", "resumed from step 4: step 5 differs from the uninterrupted run in optimizer, lr"),
            ("ckpt_steps", "10"),
            ("ckpt_steps_saved", "4 8"),
            ("ckpt_steps_on_disk", "4 8"),
        ]
    ) == junit.properties(item(TEST, BROKEN))


def test_properties_are_plain_texts() -> None:
    """Nothing but pairs of str crosses from a worker of pytest-xdist; another type would end its session."""
    properties = junit.properties(item(TEST, HOLDS["count"]))

    assert {str} == {type(text) for pair in properties for text in pair}


def test_an_item_without_a_verdict_has_the_outcome_as_its_status() -> None:
    """The sentence is the first line of why the job did not run."""
    (failed,) = failed_job(TEST, "count")

    assert snapshot(
        [
            ("ckpt_contract", "count"),
            ("ckpt_status", "error"),
            ("ckpt_sentence", "the job failed before its first optimizer step: ValueError: no GPU"),
        ]
    ) == junit.properties(failed)


def test_what_is_not_known_is_left_out() -> None:
    """An item whose fixtures failed has neither a sentence nor steps."""
    failed = ItemReport(nodeid=f"{TEST}[count]", contract="count", outcome="error")

    assert [("ckpt_contract", "count"), ("ckpt_status", "error")] == junit.properties(failed)


def test_a_job_that_saved_nothing_has_no_saved_steps() -> None:
    """Steps that there are none of are left out as well."""
    job = replace(JOB, timeline=Timeline(steps=3))

    assert ["contract", "status", "sentence", "steps"] == [
        name.removeprefix("ckpt_") for name, _ in junit.properties(item(TEST, BROKEN, job=job))
    ]
