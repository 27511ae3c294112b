"""The commands to GitHub Actions: one line each, with what would end it escaped."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from pytest_ckpt.records.verdict import Verdict
from pytest_ckpt.report import workflow
from report.samples import BROKEN, TEST, UNDECIDED, failed_job, item, items

PLACES: Final = {f"{TEST}[resumable]": ("tests/test_checkpoints.py", 12)}


def readable(*commands: str) -> str:
    """Return the commands with line breaks where they can be read."""
    return "\n".join(command.replace("::", "::\n").replace("%0A", "%0A\n") for command in commands)


def test_a_broken_contract_is_an_error_at_its_test() -> None:
    """Title and message stand alone; contracts that hold are not mentioned."""
    assert snapshot("""\
::
error file=tests/test_checkpoints.py,line=12,title=checkpoint contract broken%3A resumable of test_sft::
resumed from step 4: step 5 differs from the uninterrupted run in optimizer, lr%0A
checkpoint-4 has no optimizer.pt; transformers resumes without it and says nothing.%0A
fix: save the optimizer (save_only_model=False), or do not promise to resume from this checkpoint.\
""") == readable(*workflow.commands(items(TEST, BROKEN), PLACES))


def test_an_inconclusive_one_is_a_warning() -> None:
    """Also where the mark makes it a failure."""
    assert snapshot("""\
::
warning file=tests/test_checkpoints.py,line=12,title=checkpoint contract inconclusive%3A resumable of test_sft::
the job never read ckpt_job.resume_from%0A
each experiment started from the beginning, so nothing was resumed.%0A
fix: pass ckpt_job.resume_from to the training code, such as trainer.train(resume_from_checkpoint=ckpt_job.resume_from), or call ckpt_job.train(trainer).\
""") == readable(*workflow.commands(items(TEST, UNDECIDED), PLACES))  # noqa: E501 - a command is one line


def test_a_job_that_did_not_run_is_told_once() -> None:
    """Without a place, as its fixtures may have failed before one was known."""
    assert snapshot("""\
::
error title=checkpoint contract in error%3A count of test_sft::
the job failed before its first optimizer step: ValueError: no GPU\
""") == readable(*workflow.commands(failed_job(TEST, "count", "faithful"), {}))


@given(st.text(st.sampled_from("ab%:,\r\n20AD"), max_size=12))
def test_any_text_is_one_command(text: str) -> None:
    """A message has no line breaks left, a property no separator, and both can be read back."""
    verdict = Verdict(contract=text, status="violated", sentence=text)
    (line,) = workflow.commands([item(f"t.py::{text}", verdict)], {f"t.py::{text}[{text}]": (text, 3)})
    empty, properties, message = line.split("::", 2)
    file, number, title = properties.removeprefix("error ").split(",")

    assert ("", [line]) == (empty, line.splitlines())
    assert ([f"file={text}", "line=3"], text) == ([unquote(file), number], unquote(message))
    assert title.count(":") == 0
