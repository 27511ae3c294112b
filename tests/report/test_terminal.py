"""The section at the end of a session: what is broken comes first, and many tests that hold take few lines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from pytest_ckpt.records.verdict import ItemReport, JobResult, Timeline, Verdict, violated
from pytest_ckpt.report import terminal
from pytest_ckpt.report.items import sentence, word
from pytest_ckpt.report.wrapping import columns
from report.samples import BROKEN, HOLDS, JOB, TEST, UNDECIDED, failed_job, item, items, nodeid, stale_finding

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG: Final = (
    "tests/training/nightly/test_sft_recipes.py::TestRecipes::test_that_every_recipe_resumes[llama-lora-bf16-zero3]"
)
LONG_JOB: Final = replace(JOB, timeline=Timeline(steps=1578, saved=(400, 800, 1200, 1500), kept=(1200, 1500)))
A_SCREEN: Final = 28


def text(items: Sequence[ItemReport], width: int = 80) -> str:
    """Return the section as text."""
    return "\n".join(line for line, _ in terminal.section(items, width))


def several(number: int, files: int = 1) -> list[ItemReport]:
    """Return the items of tests that hold."""
    tests = [f"tests/test_{n % files}.py::test_{n}" for n in range(number)]
    return [one for test in tests for one in items(test)]


def test_one_test_with_a_broken_contract() -> None:
    """A cell per contract, why it is broken, and the steps."""
    assert snapshot("""\
tests/test_checkpoints.py  final_step  faithful  resumable
  test_sft                 ok          ok        BROKEN
    resumable: resumed from step 4: step 5 differs from the uninterrupted run in
      optimizer, lr
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
not applicable: count
[n] on disk  (n) last step
1 broken, 2 ok, 1 n/a in 1 test, 1.2s\
""") == text(items(TEST, BROKEN))


def test_one_test_that_holds() -> None:
    """There is nothing to say but the steps."""
    assert snapshot("""\
tests/test_checkpoints.py  final_step  faithful  resumable
  test_sft                 ok          ok        ok
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
not applicable: count
[n] on disk  (n) last step
3 ok, 1 n/a in 1 test, 1.2s\
""") == text(items(TEST))


def test_a_few_tests_broken_undecided_and_in_error() -> None:
    """Failures come first, each with its reason; a reason that all contracts of a test share is told once."""
    session = (
        several(2) + items(LONG, UNDECIDED, job=LONG_JOB) + failed_job("tests/test_lora.py::test_a", "count", "ours")
    )

    assert snapshot("""\
tests/training/nightly/test_sft_recipes.py       final_step  faithful  resumable
  TestRecipes::t..esumes[llama-lora-bf16-zero3]  ok          ok        undecided
    resumable: the job never read ckpt_job.resume_from
    1 .. <400> .. <800> .. [1200] .. [1500] .. (1578)    lost: 1501 to 1578
not applicable: count
tests/test_lora.py  count  ours
  test_a            error  error
    the job failed before its first optimizer step: ValueError: no GPU
tests/test_0.py  final_step  faithful  resumable
  test_0         ok          ok        ok
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
  test_1         ok          ok        ok
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
not applicable: count
[n] on disk  <n> deleted again  (n) last step
2 errors, 1 undecided, 8 ok, 3 n/a in 4 tests, 3.8s\
""") == text(session)


def test_a_narrow_terminal() -> None:
    """Cells name their contracts where there is no room for columns, and the steps leave more out."""
    assert snapshot("""\
tests/traini..ightly/test_sft_recipes.py
  TestRecipes:..s[llama-lora-bf16-zero3]
    final_step ok  faithful ok
    resumable undecided
    resumable: the job never read
      ckpt_job.resume_from
    1 <..> [1200] .. [1500] .. (1578)
    lost: 1501 to 1578
tests/test_0.py
  test_0
    final_step ok  faithful ok
    resumable ok
    1 2 3 [4] 5 6 7 [8] 9 (10)
    lost: 9 to 10
not applicable: count
[n] on disk  <n> deleted again
(n) last step
1 undecided, 5 ok, 2 n/a in 2 tests,
  2.5s\
""") == text(items(LONG, UNDECIDED, job=LONG_JOB) + several(1), 40)


def test_a_broken_test_among_twenty_that_hold() -> None:
    """Those that hold are counted."""
    assert snapshot("""\
tests/test_1.py  final_step  faithful  resumable
  test_sft       ok          ok        BROKEN
    resumable: resumed from step 4: step 5 differs from the uninterrupted run in
      optimizer, lr
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
  and 10 more tests: 30 ok, 10 n/a
not applicable: count
tests/test_0.py  10 tests: 30 ok, 10 n/a
[n] on disk  (n) last step
1 broken, 62 ok, 21 n/a in 21 tests, 26.2s\
""") == text(several(20, files=2) + items("tests/test_1.py::test_sft", BROKEN))


def test_sixty_tests_that_hold() -> None:
    """Each file is a line, and many files are one."""
    assert snapshot("""\
tests/test_0.py   3 tests: 9 ok, 3 n/a
tests/test_1.py   3 tests: 9 ok, 3 n/a
tests/test_2.py   3 tests: 9 ok, 3 n/a
tests/test_3.py   3 tests: 9 ok, 3 n/a
tests/test_4.py   3 tests: 9 ok, 3 n/a
tests/test_5.py   3 tests: 9 ok, 3 n/a
tests/test_6.py   3 tests: 9 ok, 3 n/a
tests/test_7.py   3 tests: 9 ok, 3 n/a
tests/test_8.py   3 tests: 9 ok, 3 n/a
tests/test_9.py   3 tests: 9 ok, 3 n/a
tests/test_10.py  3 tests: 9 ok, 3 n/a
tests/test_11.py  3 tests: 9 ok, 3 n/a
and 8 more files  24 tests: 72 ok, 24 n/a
180 ok, 60 n/a in 60 tests, 75.0s\
""") == text(several(60, files=20))
    assert snapshot("""\
tests/test_0.py  60 tests: 180 ok, 60 n/a
180 ok, 60 n/a in 60 tests, 75.0s\
""") == text(several(60))


def test_a_skipped_session_is_short() -> None:
    """Sixty tests that could not be run here do not fill a screen."""
    skipped = [
        ItemReport(nodeid=nodeid(f"tests/test_x.py::test_{n}", "count"), contract="count", outcome="skipped")
        for n in range(60)
    ]

    assert snapshot("""\
tests/test_x.py  60 tests: 60 skipped
60 skipped in 60 tests, 0.0s\
""") == text(skipped)


def test_a_session_without_results() -> None:
    """It was ended before the first test."""
    assert "no verdict" == text([])
    assert "checkpoint contracts: no verdict" == terminal.quiet([])


def test_a_job_without_steps() -> None:
    """The line of steps says so."""
    assert "    no step was trained" in text(items(TEST, job=replace(JOB, timeline=Timeline(steps=0)))).splitlines()


def test_many_checkpoints_fit_on_the_line_of_steps() -> None:
    """The first and the last ones are shown, and what would be lost."""
    every = tuple(range(4, 300, 4))
    job = replace(JOB, timeline=Timeline(steps=300, saved=every, kept=every))

    assert (
        snapshot("    1 .. [4] .. [8] [..] [288] .. [292] .. [296] .. (300)    lost: 297 to 300")
        == text(items(TEST, job=job)).splitlines()[2]
    )


def test_names_in_any_language_keep_the_columns() -> None:
    """Wide characters take two columns each."""
    session = items("tests/test_größe.py::test_模型", violated("faithful", stale_finding(8))) + items(
        "tests/test_größe.py::test_b"
    )

    assert snapshot("""\
tests/test_größe.py  final_step  faithful  resumable
  test_模型          ok          BROKEN    ok
    faithful: checkpoint-8 was saved for step 8 and holds the state of step 4
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
  test_b             ok          ok        ok
    1 2 3 [4] 5 6 7 [8] 9 (10)    lost: 9 to 10
not applicable: count
[n] on disk  (n) last step
1 broken, 5 ok, 2 n/a in 2 tests, 2.5s\
""") == text(session)


def test_what_failed_is_red_and_what_holds_is_green() -> None:
    """A row has the colour of its most urgent cell, the last line that of the session."""
    session = several(1) + items("tests/test_1.py::test_u", UNDECIDED) + items("tests/test_1.py::test_b", BROKEN)
    session = [replace(one, outcome="skipped") if one.verdict == UNDECIDED else one for one in session]
    lines = list(terminal.section(session, 80))
    colours = {line.split()[0]: markup for line, markup in lines if line.startswith("  test_")}

    assert {"test_b": {"red": True}, "test_u": {"yellow": True}, "test_0": {"green": True}} == colours
    assert {"red": True, "bold": True} == lines[-1][1]


def test_contracts_come_in_the_order_of_the_test_that_has_most() -> None:
    """A test with one contract does not move its column to the front."""
    session = [item("tests/test_a.py::test_1", BROKEN), *items("tests/test_a.py::test_2")]

    applying = [name for name in HOLDS if name != "count"]
    assert ["tests/test_a.py", *applying] == text(session).splitlines()[0].split()


def test_the_quiet_line_counts_what_is_broken_first() -> None:
    """With -q one line has to do."""
    session = several(3) + items(TEST, BROKEN) + failed_job("tests/test_lora.py::test_a", "count", "ours")

    assert snapshot("checkpoint contracts: 1 broken, 2 errors, 11 ok, 4 n/a in 5 tests, 5.0s") == terminal.quiet(
        session
    )


VERDICTS: Final = st.sampled_from([BROKEN, UNDECIDED, *HOLDS.values()])
TESTS: Final = st.text("abcß模[]-:/ ", min_size=1, max_size=60).map(lambda name: f"tests/test_{name[:9]}.py::{name}")
JOBS: Final = st.builds(
    JobResult,
    test=st.just(""),
    timeline=st.none() | st.builds(Timeline, steps=st.integers(0, 10**6), saved=st.just((3, 5)), kept=st.just((5,))),
)


@given(st.lists(st.builds(item, TESTS, VERDICTS, job=JOBS), max_size=30), st.integers(40, 120))
def test_no_line_is_wider_than_the_terminal(session: list[ItemReport], width: int) -> None:
    """Whatever a session has, its section fits."""
    assert all(columns(line) <= width for line, _ in terminal.section(session, width))


@given(st.integers(0, 200), st.integers(1, 60))
def test_tests_that_hold_take_few_lines(number: int, files: int) -> None:
    """However many there are."""
    assert len(text(several(number, files)).splitlines()) <= A_SCREEN


@pytest.mark.parametrize(
    ("outcome", "verdict", "expected"),
    [
        ("passed", HOLDS["faithful"], "ok"),
        ("failed", BROKEN, "BROKEN"),
        ("failed", UNDECIDED, "undecided"),
        ("skipped", UNDECIDED, "undecided"),
        ("skipped", HOLDS["count"], "n/a"),
        ("skipped", None, "skipped"),
        ("xfailed", BROKEN, "xfail"),
        ("xpassed", HOLDS["faithful"], "XPASS"),
        ("failed", HOLDS["faithful"], "XPASS"),
        ("failed", None, "error"),
        ("error", None, "error"),
        ("error", HOLDS["faithful"], "error"),
    ],
)
def test_every_outcome_has_its_word(outcome: str, verdict: Verdict | None, expected: str) -> None:
    """A strict xfail that held fails in pytest; a test that passed and could not be torn down is in error."""
    assert expected == word(ItemReport(nodeid="t[c]", contract="c", outcome=outcome, verdict=verdict))


def test_the_reason_of_a_skip_is_its_sentence() -> None:
    """It is shown where there is no verdict."""
    skipped = ItemReport(nodeid="t[c]", contract="c", outcome="skipped", reason="needs two devices\nhere is one")

    assert "needs two devices" == sentence(skipped)
