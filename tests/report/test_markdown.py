"""The report for a page: what is broken is told first and in full, and any text is shown as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from markdown_it import MarkdownIt

from pytest_ckpt.records.verdict import Finding, Verdict, violated
from pytest_ckpt.report import markdown
from pytest_ckpt.report.escaping import block, cell, code, plain
from report.samples import BROKEN, HOLDS, TEST, UNDECIDED, failed_job, item, items, stale_finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from markdown_it.token import Token

    from pytest_ckpt.records.verdict import ItemReport

TRICKY: Final = ("a|b", "`a`", "a\\|b", "\\", "<br>&amp;", "[a](b)", "1. a", "# a", "- a", "***", "$x$ ~~y~~", "a\n\nb")
TEXTS: Final = st.text(st.sampled_from("ab 1.)#-+=*_`|\\<>[]()&;!~$\n\r"), max_size=12) | st.text(max_size=8)


def parsed(text: str) -> list[Token]:
    """Return the tokens of a page, those inside paragraphs included."""
    tokens = MarkdownIt().enable(["table", "strikethrough"]).parse(text)
    return [each for token in tokens for each in (token, *(token.children or ()))]


def shown(text: str) -> str:
    """Return the text that a reader sees, in one line."""
    return " ".join("".join(_words(parsed(text))).split())


def _words(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type in {"text", "code_inline", "fence"} or token.type == "text_special":
            yield token.content
        assert token.type not in {"html_inline", "html_block", "em_open", "link_open", "heading_open", "hr"}


def one_line(text: str) -> str:
    """Return `text` with each run of white space as one space."""
    return " ".join(text.replace("\0", "\ufffd").split())


def several(*texts: Callable[[str], str]) -> pytest.MarkDecorator:
    """Return a mark that runs a test with each of these functions."""
    return pytest.mark.parametrize("escape", texts, ids=lambda function: function.__name__)


@several(plain, code)
@given(text=TEXTS)
@example(text="a`b``c")
def test_a_paragraph_shows_any_text(escape: Callable[[str], str], text: str) -> None:
    """Whatever the text is, it makes one paragraph in which it is read letter by letter."""
    assert one_line(text) == shown(escape(text))


@several(plain, cell)
@given(texts=st.lists(TEXTS, min_size=2, max_size=3))
@example(texts=["a|b", "c\\|d"])
def test_a_cell_shows_any_text(escape: Callable[[str], str], texts: list[str]) -> None:
    """A row has as many cells as there are texts, each with its own."""
    page = "\n".join([f"| {' | '.join('xyz'[: len(texts)])} |", "|" + "---|" * len(texts)])
    page += f"\n| {' | '.join(map(escape, texts))} |\n"
    rows = MarkdownIt().enable("table").parse(page)
    cells = [token for token in rows if token.type == "inline"][len(texts) :]

    assert list(map(one_line, texts)) == ["".join(_words(cell.children or ())).strip() for cell in cells]


@given(st.lists(TEXTS.filter(lambda text: not set(text) & set("\r\n\0")), min_size=1, max_size=4))
def test_a_block_shows_any_lines(lines: list[str]) -> None:
    """No line ends the block before its end."""
    (token,) = MarkdownIt().parse(block(lines))

    assert ("fence", "\n".join(lines) + "\n") == (token.type, token.content)


def test_a_broken_contract_is_told_in_full() -> None:
    """The headline, the table as in the terminal, and all that helps to mend it."""
    assert snapshot("""\
## 1 of 4 checkpoint contracts is broken, 2 hold, 1 does not apply

| `tests/test_checkpoints.py` | final\\_step | count | faithful | resumable | steps |
|---|---|---|---|---|---|
| `test_sft` | ok | n/a | ok | **BROKEN** | `1 2 3 [4] 5 6 7 [8] 9 (10)` |

1 test, 1.2 s · `[n]` on disk · `(n)` last step

### Broken: `tests/test_checkpoints.py::test_sft[resumable]`

**resumed from step 4: step 5 differs from the uninterrupted run in optimizer, lr**

```text
data        same batches
weights     same
optimizer   exp_avg, exp_avg_sq of 14 of 14 parameters are zero (saved norm 1.7e-02)
            <- first difference
lr          5.0e-05, uninterrupted 3.0e-05
```

checkpoint-4 has no optimizer.pt; transformers resumes without it and says nothing.

**fix:** save the optimizer (save\\_only\\_model=False), or do not promise to resume from this checkpoint.

also:
* resumed from step 8: step 9 differs from the uninterrupted run in optimizer, lr

steps: `1 2 3 [4] 5 6 7 [8] 9 (10)`, lost: 9 to 10

repeat: `pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[resumable]"`
""") == markdown.text(items(TEST, BROKEN))


def test_a_session_in_which_everything_holds() -> None:
    """One sentence and the table."""
    assert snapshot("""\
## All 2 checkpoint contracts hold

| `tests/test_checkpoints.py` | final\\_step | faithful | steps |
|---|---|---|---|
| `test_sft` | ok | ok | `1 2 3 [4] 5 6 7 [8] 9 (10)` |

1 test, 1.2 s · `[n]` on disk · `(n)` last step
""") == markdown.text([item(TEST, HOLDS["final_step"]), item(TEST, HOLDS["faithful"])])


def test_several_files_inconclusive_and_in_error() -> None:
    """One table for all files; an error that contracts share is told once."""
    session = items(TEST, UNDECIDED) + failed_job("tests/test_lora.py::test_a", "count", "ours")

    assert snapshot("""\
## 2 of 7 checkpoint contracts ended in an error, 1 is inconclusive, 2 hold, 1 does not apply, 1 came to no verdict

| test | final\\_step | count | faithful | resumable | ours | steps |
|---|---|---|---|---|---|---|
| **tests/test\\_lora.py** |  |  |  |  |  |  |
| `test_a` |  | **error** |  |  | **error** |  |
| **tests/test\\_checkpoints.py** |  |  |  |  |  |  |
| `test_sft` | ok | n/a | ok | **undecided** |  | `1 2 3 [4] 5 6 7 [8] 9 (10)` |

2 tests, 1.2 s · `[n]` on disk · `(n)` last step

The session ended before `tests/test_checkpoints.py::test_sft[count]`.

### Error: `tests/test_lora.py::test_a`

the job failed before its first optimizer step: ValueError: no GPU

```text
  Traceback (most recent call last):
```

repeat: `pytest --ckpt-contract "tests/test_lora.py::test_a[count]"`

### Inconclusive: `tests/test_checkpoints.py::test_sft[resumable]`

**the job never read ckpt\\_job.resume\\_from**

each experiment started from the beginning, so nothing was resumed.

**fix:** pass ckpt\\_job.resume\\_from to the training code, such as trainer.train(resume\\_from\\_checkpoint=ckpt\\_job.resume\\_from), or call ckpt\\_job.train(trainer).

steps: `1 2 3 [4] 5 6 7 [8] 9 (10)`, lost: 9 to 10

repeat: `pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[resumable]"`
""") == markdown.text(session, missing=[f"{TEST}[count]"])  # noqa: E501 - a paragraph is one line


@pytest.mark.parametrize(
    ("session", "headline"),
    [
        ([], snapshot("## No checkpoint contract was checked")),
        ([item(TEST, HOLDS["faithful"])], snapshot("## The checkpoint contract holds")),
        (items(TEST), snapshot("## 3 of 4 checkpoint contracts hold, 1 does not apply")),
        ([item(TEST, BROKEN)], snapshot("## The checkpoint contract is broken")),
        (
            [item(TEST, BROKEN), item("t.py::a", BROKEN), item(TEST, UNDECIDED)],
            snapshot("## 2 of 3 checkpoint contracts are broken, 1 is inconclusive"),
        ),
        (
            [item(TEST, HOLDS["faithful"], outcome="failed")],
            snapshot("## The checkpoint contract holds unexpectedly"),
        ),
        ([item(TEST, BROKEN, outcome="xfailed")], snapshot("## The checkpoint contract is broken as expected")),
    ],
)
def test_the_headline_is_a_sentence(session: list[ItemReport], headline: str) -> None:
    """It counts what is not in order, or says that everything is."""
    assert headline == markdown.text(session).splitlines()[0]


def test_findings_of_other_kinds_have_a_cause_and_a_fix() -> None:
    """Those of one kind are told once, and the others are named."""
    stale = [stale_finding(step) for step in (8, 12, 16, 20, 24, 28, 32)]
    text = markdown.text([item(TEST, violated("faithful", *stale, Finding(title="odd", fix="mend it.")))])

    assert (
        snapshot("""\
**checkpoint-8 was saved for step 8 and holds the state of step 4**

a stale copy was written: the saved object is not the one being trained, or was copied earlier.

**fix:** take the state dict at the moment of the save, from the model that is trained.

**odd**

**fix:** mend it.

also:
* checkpoint-12 was saved for step 12 and holds the state of step 4
* checkpoint-16 was saved for step 16 and holds the state of step 4
* checkpoint-20 was saved for step 20 and holds the state of step 4
* checkpoint-24 was saved for step 24 and holds the state of step 4
* and 2 more

""")
        == text[text.index("**checkpoint") : text.index("steps:")]
    )


def test_a_strict_xfail_that_holds_says_what_to_do() -> None:
    """To pytest it is a failure, so the page has a word on it."""
    held = replace(item(TEST, HOLDS["faithful"], outcome="failed"), reason="#7")

    assert (
        snapshot("""\
Unexpectedly holds: `tests/test_checkpoints.py::test_sft[faithful]`

2 saves of steps 4, 8: each holds the state of its step

It was expected to fail (\\#7): remove `xfail` from its mark.

steps: `1 2 3 [4] 5 6 7 [8] 9 (10)`, lost: 9 to 10

repeat: `pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[faithful]"`
""")
        == markdown.text([held]).partition("### ")[2]
    )


def test_states_that_a_crash_left_are_a_table_and_a_command() -> None:
    """The columns are aligned as in a terminal, and the first of the states can be tried again."""
    rows = (
        ("state", "newest whole", "a restart"),
        ("31-46", "step 2", "refused: KeyError"),
        ("state 31", "KeyError: 'a'"),
    )
    text = markdown.text([item(TEST, violated("crash_safe", Finding(title="it fails", rows=rows, states=(31, 32))))])

    assert (
        snapshot("""**it fails**

```text
state  newest whole  a restart
31-46  step 2        refused: KeyError
state 31   KeyError: 'a'
```

steps: `1 2 3 [4] 5 6 7 [8] 9 (10)`, lost: 9 to 10

repeat: `pytest --ckpt-contract "tests/test_checkpoints.py::test_sft[crash_safe]"`

replay one state: `pytest --ckpt-contract --ckpt-crash 31 "tests/test_checkpoints.py::test_sft[crash_safe]"`
""")
        == text[text.index("**it fails**") :]
    )


def test_an_odd_name_is_one_cell_and_one_line() -> None:
    """Parameters may hold what ends a cell, a span of code or a line."""
    text = markdown.text([item(f"tests/test_a.py::test_sft[{name}]", BROKEN) for name in TRICKY])
    rows = [token for token in parsed(text) if token.type == "tr_open"]
    headings = [token for token in parsed(text) if token.type == "heading_open"]

    assert (1 + len(TRICKY), 1 + len(TRICKY)) == (len(rows), len(headings))


def test_a_long_report_stops_and_says_so() -> None:
    """GitHub shows nothing of a summary that is too large; the table is always there."""
    session = [item(f"t.py::test_{number}", BROKEN) for number in range(50)]
    text = markdown.text(session, limit=6000)

    assert len(text) < 6200
    assert 50 == text.count("**BROKEN**")
    assert snapshot("There are 46 more of these, which would be too long for a page.") == text.splitlines()[-1]


def test_the_error_of_a_job_is_cut_in_its_middle() -> None:
    """The first line of a traceback says what it is, the last ones what happened."""
    (failed,) = failed_job(TEST, "count")
    assert failed.job is not None
    frames = "".join(f"\n  line {number}" for number in range(100))
    text = markdown.text([replace(failed, job=replace(failed.job, error=f"it failed{frames}"))])

    assert "it failed\n\n```text\n  line 0\n  ..\n  line 80\n" in text


def test_a_verdict_without_findings_has_its_sentence() -> None:
    """A contract of another package need not give any."""
    verdict = Verdict(contract="ours", status="violated", sentence="it is *broken*", notes=("as ever",))
    text = markdown.text([item(TEST, verdict)])

    assert "\n\nit is \\*broken\\*\n\nnote: as ever\n\n" in text
