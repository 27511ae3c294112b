"""The message of a failure stands alone: what is broken, where, why, what to do, and how to see it again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from pytest_ckpt.records.verdict import Finding, Timeline, Verdict, inconclusive, violated
from pytest_ckpt.report.text import explain
from report.samples import BROKEN, JOB, TEST, UNDECIDED, nodeid, optimizer_finding, stale_finding


def message(verdict: Verdict, *, timeline: Timeline | None = JOB.timeline, test: str = TEST) -> str:
    """Return the message of a test's failure."""
    return explain(verdict, replace(JOB, timeline=timeline), nodeid(test, verdict.contract))


def test_a_broken_contract() -> None:
    """The message has the finding with its table, its cause and a fix, the steps, the evidence and a command."""
    assert snapshot("""\
checkpoint contract broken: resumable
  resumed from step 4: step 5 differs from the uninterrupted run in optimizer,
  lr
    data        same batches
    weights     same
    optimizer   exp_avg, exp_avg_sq of 14 of 14 parameters are zero (saved norm
                1.7e-02)   <- first difference
    lr          5.0e-05, uninterrupted 3.0e-05
  checkpoint-4 has no optimizer.pt; transformers resumes without it and says
  nothing.
  fix: save the optimizer (save_only_model=False), or do not promise to resume
       from this checkpoint.
  also     resumed from step 8: step 9 differs from the uninterrupted run in
             optimizer, lr
  saves    1 2 3 [4] 5 6 7 [8] 9 (10)
           [n] on disk  (n) last step, lost: 9 to 10
  kept     /tmp/pytest-3/test_sft0/job-evidence
           the runs' journals and copies of their checkpoints
  repeat   pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[resumable]"\
""") == message(BROKEN)


def test_an_undecided_contract() -> None:
    """It says that nothing could be decided, and why."""
    assert snapshot("""\
checkpoint contract inconclusive: resumable
  could not be decided: the job never read ckpt_job.resume_from
  each experiment started from the beginning, so nothing was resumed.
  fix: pass ckpt_job.resume_from to the training code, such as
       trainer.train(resume_from_checkpoint=ckpt_job.resume_from), or call
       ckpt_job.train(trainer).
  saves    1 2 3 [4] 5 6 7 [8] 9 (10)
           [n] on disk  (n) last step, lost: 9 to 10
  kept     /tmp/pytest-3/test_sft0/job-evidence
           the runs' journals and copies of their checkpoints
  repeat   pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[resumable]"\
""") == message(UNDECIDED)


def test_findings_of_one_kind_are_told_once() -> None:
    """Thirteen broken checkpoints make one screen: the first one is told, some are named, the rest is counted."""
    verdict = violated("faithful", *map(stale_finding, range(8, 60, 4)))

    assert snapshot("""\
checkpoint contract broken: faithful
  checkpoint-8 was saved for step 8 and holds the state of step 4
  a stale copy was written: the saved object is not the one being trained, or
  was copied earlier.
  fix: take the state dict at the moment of the save, from the model that is
       trained.
  also     checkpoint-12 was saved for step 12 and holds the state of step 4
           checkpoint-16 was saved for step 16 and holds the state of step 4
           checkpoint-20 was saved for step 20 and holds the state of step 4
           checkpoint-24 was saved for step 24 and holds the state of step 4
           and 8 more
  saves    1 .. <400> .. [800] .. [1200] .. (1578)
           [n] on disk  <n> deleted again  (n) last step, lost: 1201 to 1578
  kept     /tmp/pytest-3/test_sft0/job-evidence
           the runs' journals and copies of their checkpoints
  repeat   pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[faithful]"\
""") == message(verdict, timeline=Timeline(steps=1578, saved=(400, 800, 1200), kept=(800, 1200)))


def test_findings_of_other_kinds_are_told_with_cause_and_fix() -> None:
    """What is broken for another reason needs another fix."""
    verdict = violated("resumable", optimizer_finding(4), stale_finding(8), optimizer_finding(8), notes=("seen.",))

    assert snapshot("""\
checkpoint contract broken: resumable
  resumed from step 4: step 5 differs from the uninterrupted run in optimizer,
  lr
    data        same batches
    weights     same
    optimizer   exp_avg, exp_avg_sq of 14 of 14 parameters are zero (saved norm
                1.7e-02)   <- first difference
    lr          5.0e-05, uninterrupted 3.0e-05
  checkpoint-4 has no optimizer.pt; transformers resumes without it and says
  nothing.
  fix: save the optimizer (save_only_model=False), or do not promise to resume
       from this checkpoint.

  checkpoint-8 was saved for step 8 and holds the state of step 4
  a stale copy was written: the saved object is not the one being trained, or
  was copied earlier.
  fix: take the state dict at the moment of the save, from the model that is
       trained.
  also     resumed from step 8: step 9 differs from the uninterrupted run in
             optimizer, lr
  note: seen.
  saves    1 2 3 [4] 5 6 7 [8] 9 (10)
           [n] on disk  (n) last step, lost: 9 to 10
  kept     /tmp/pytest-3/test_sft0/job-evidence
           the runs' journals and copies of their checkpoints
  repeat   pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[resumable]"\
""") == message(verdict)


def test_a_later_finding_has_its_table_where_that_is_short_and_new() -> None:
    """As with the phase that it is about; a long one, and the one that was just shown, are left out."""
    table = (("SIGINT", "in a save"),)
    first, long = Finding(title="steps are lost", rows=table), Finding(title="long", cause="a", rows=(("", "b"),) * 4)
    other = Finding(title="in 1 of 2 restarts", cause="b", rows=(("SIGTERM", "between two steps"),))

    for finding, rows in ((other, 1), (replace(other, rows=table), 0), (long, 0)):
        lines = message(violated("preemptible", first, finding), timeline=None).splitlines()
        assert ["    SIGINT   in a save", "", f"  {finding.title}"] == lines[2:5]
        assert (["    SIGTERM   between two steps"] * rows) == lines[5 : 5 + rows]
        assert f"  {finding.cause}" == lines[5 + rows]


def test_a_state_that_a_crash_left_is_tried_again_by_a_command() -> None:
    """The first in which the job failed; its test may be called by characters that a shell reads."""
    verdict = violated("crash_safe", stale_finding(8), replace(stale_finding(12), states=(31, 32)))

    lines = message(verdict, test="tests/test_a.py::test_b[$HOME]").splitlines()
    assert [
        "  repeat   pytest --ckpt-contract 'tests/test_a.py::test_b[$HOME-crash_safe]'",
        "  replay   pytest --ckpt-contract --ckpt-crash 31 'tests/test_a.py::test_b[$HOME-crash_safe]'",
    ] == lines[-2:]


@given(st.lists(st.builds(optimizer_finding, st.integers(1, 9999)) | st.builds(stale_finding, st.integers(1, 9999))))
def test_a_message_fits_a_screen(findings: list[Finding]) -> None:
    """However many findings there are, a message has at most 40 lines of 80 columns, its command aside."""
    lines = message(violated("resumable", *[optimizer_finding(4), *findings])).splitlines()

    assert len(lines) <= 40
    assert all(len(line) <= 80 for line in lines[:-1])


def test_the_sentence_of_a_verdict_without_findings_is_shown() -> None:
    """A contract of somebody else may give no more than a sentence."""
    verdict = Verdict(contract="ours", status="violated", sentence="the tokenizer is not saved")

    assert ["checkpoint contract broken: ours", "  the tokenizer is not saved"] == message(verdict).splitlines()[:2]


def test_a_sentence_that_sums_up_comes_before_the_findings() -> None:
    """It is not lost where it says something else than the first finding."""
    verdict = replace(inconclusive("ours", Finding(title="no tokenizer")), sentence="2 of 2 files are missing")

    assert [
        "  could not be decided: 2 of 2 files are missing",
        "  no tokenizer",
    ] == message(verdict).splitlines()[1:3]


def test_the_traceback_of_a_resume_keeps_its_form() -> None:
    """Lines of a traceback are quoted, not set in a table."""
    rows = (("", '  File "train.py", line 7, in load'), ("", '    raise KeyError("step")'), ("", "KeyError: 'step'"))
    verdict = violated("resumable", Finding(title="resuming from step 4 raised an error", rows=rows))

    assert snapshot("""\
      File "train.py", line 7, in load
        raise KeyError("step")
    KeyError: 'step'\
""") == "\n".join(message(verdict).splitlines()[2:5])


def test_a_job_without_steps() -> None:
    """A line of steps is there all the same."""
    assert "  saves    no step was trained" in message(UNDECIDED, timeline=Timeline(steps=0)).splitlines()


def test_a_job_without_a_timeline() -> None:
    """Where no steps are known, none are drawn."""
    assert not any(line.startswith("  saves") for line in message(UNDECIDED, timeline=None).splitlines())


def test_titles_in_any_language() -> None:
    """What a job says is passed on as it is."""
    verdict = violated("count", Finding(title="größer: 模型检查点 не найден", fix="écrire à nouveau."))

    assert ["  größer: 模型检查点 не найден", "  fix: écrire à nouveau."] == message(verdict).splitlines()[1:3]


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ("tests/test_x.py::test_y[a b]", '"tests/test_x.py::test_y[a b-resumable]"'),
        ("tests/test_x.py::test_y[$HOME]", "'tests/test_x.py::test_y[$HOME-resumable]'"),
        ('tests/test_x.py::test_y["a"]', "'tests/test_x.py::test_y[\"a\"-resumable]'"),
    ],
)
def test_the_command_can_be_pasted_into_a_shell(test: str, expected: str) -> None:
    """Node ids are quoted so that the shell passes them on unchanged."""
    assert f"  repeat   pytest --ckpt-contract {expected}" == message(BROKEN, test=test).splitlines()[-1]
