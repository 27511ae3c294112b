"""Text keeps to its width, and what a reader copies from it stays whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from pytest_ckpt.report.wrapping import columns, cut_middle, flow, padded, table, wrap

WORDS = st.lists(st.text("abcß", min_size=1, max_size=9), max_size=20).map(" ".join)


@given(WORDS, st.integers(20, 80))
def test_lines_keep_to_the_width_and_to_the_words(text: str, width: int) -> None:
    """No line is too long, and no word is lost or broken."""
    lines = wrap(text, width, first="- ", rest="  ")

    assert all(len(line) <= width for line in lines)
    assert text.split() == " ".join(lines).removeprefix("-").split()


def test_a_path_is_never_broken() -> None:
    """It stands on a line of its own, to be copied."""
    path = "/data/a-very-long/path-with-hyphens/to/the/checkpoint-8"

    assert ["see", f"  {path}"] == wrap(f"see {path}", 20, rest="  ")


def test_the_mark_of_a_row_stays_on_one_line() -> None:
    """The arrow is not torn from its words."""
    assert snapshot(["exp_avg of 14 of 14 parameters are zero", "<- first difference"]) == wrap(
        "exp_avg of 14 of 14 parameters are zero   <- first difference", 56
    )


def test_text_is_cut_where_it_takes_too_many_lines() -> None:
    """Dots say that there is more."""
    assert ["one two three", "four five ..."] == wrap("one two three four five six seven", 16, at_most=2)


def test_pieces_flow_without_being_broken() -> None:
    """A line ends between two pieces only."""
    pieces = ["final_step ok", "count n/a", "resumable BROKEN"]

    assert ["  final_step ok  count n/a", "  resumable BROKEN"] == flow(pieces, 30, first="  ", rest="  ")


def test_the_texts_of_a_table_stand_in_a_column() -> None:
    """Labels are aligned, and a long text goes on below itself."""
    rows = [("data", "same batches"), ("optimizer", "exp_avg of 14 of 14 parameters are absent")]

    assert snapshot(
        ["  data        same batches", "  optimizer   exp_avg of 14 of 14", "              parameters are absent"]
    ) == list(table(rows, 40, "  "))


def test_a_long_label_pushes_its_own_text_only() -> None:
    """The other rows keep their column."""
    rows = [("weights", "same"), ("model.layers.0.self_attn.q_proj.weight", "differs")]

    assert snapshot(["weights                same", "model.layers.0.self_attn.q_proj.weight   differs"]) == list(
        table(rows, 80, "")
    )


def test_rows_of_many_texts_have_columns() -> None:
    """Each text is wrapped in its own column, the widest gives way, a word that is too long is cut; other rows are as ever."""
    rows = [
        ("state", "whole", "killed in or after", "a restart"),
        ("1-9", "step 2", "rename new.tmp to a-very-long-name-of-a-file.safetensors", "refused: SafetensorError"),
        ("and 3 more", "alike"),
    ]

    assert snapshot(
        [
            "  state  whole   killed in or after  a restart",
            "  1-9    step 2  rename new.tmp to   refused:",
            "                 a-ver..safetensors  SafetensorError",
            "  and 3 more   alike",
        ]
    ) == list(table(rows, 55, "  "))


def test_a_traceback_keeps_its_indentation() -> None:
    """Rows without labels are text from the indent on."""
    rows = [("", "Traceback (most recent call last):"), ("", '  File "train.py", line 3'), ("", "    raise ValueError")]

    assert snapshot(
        ["    Traceback (most recent call last):", '      File "train.py", line 3', "        raise ValueError"]
    ) == list(table(rows, 80, "    "))


def test_a_row_is_cut_after_four_lines() -> None:
    """The names of all checkpoints of a long run do not push the cause out of sight."""
    rows = [("on disk", ", ".join(f"checkpoint-{step}" for step in range(100))), ("saved", "100")]

    assert snapshot(
        [
            "on disk   checkpoint-0, checkpoint-1, checkpoint-2,",
            "          checkpoint-3, checkpoint-4, checkpoint-5,",
            "          checkpoint-6, checkpoint-7, checkpoint-8,",
            "          checkpoint-9, checkpoint-10, checkpoint-11, ...",
            "saved     100",
        ]
    ) == list(table(rows, 60, ""))


def test_a_table_without_rows_has_no_lines() -> None:
    """Most findings that could not be decided have none."""
    assert [] == list(table([], 80, ""))


@given(st.text(), st.integers(2, 40))
def test_a_cut_text_fits(text: str, width: int) -> None:
    """Wide characters count as the two columns that they take."""
    assert columns(cut_middle(text, width)) <= width


def test_a_cut_node_id_keeps_the_end_of_its_name() -> None:
    """Of the two ends, the second tells more tests apart."""
    assert "TestCheck..solation[llama-bf16]" == cut_middle("TestCheckpointing::test_isolation[llama-bf16]", 31)


def test_columns_of_wide_and_combining_characters() -> None:
    """A Chinese character takes two columns, an accent of its own none."""
    assert (4, 1) == (columns("模型"), columns("e\N{COMBINING ACUTE ACCENT}"))
    assert "模型  |" == padded("模型", 6) + "|"
