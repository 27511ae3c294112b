"""The reader of the pages notices what is wrong with a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .output import comparable, portable, shown
from .pages import read
from .running import Reader, Warm

if TYPE_CHECKING:
    from pathlib import Path

PAGE = """\
# A page

```python
# test_sum.py
def test_sum():
    assert sum([1, 1]) == 2
```

```diff
--- test_sum.py
 def test_sum():
-    assert sum([1, 1]) == 2
+    assert sum([1, 1]) == 3
```

<!-- shown: end -->
```console
$ pytest
...
============================== OUTCOME in 0.01s ===============================
```
"""
OUTPUT = """\
============================= test session starts ==============================
rootdir: /somewhere
collected 2 items

test_a.py .F                                                             [100%]

=================================== FAILURES ===================================
____________________________ test_a[final_step] ________________________________
checkpoint contract broken: final_step
----------------------------- ckpt baseline stdout -----------------------------
loss 0.25
========================= 1 failed, 1 passed in 1.20s ==========================
"""


@pytest.mark.parametrize(("outcome", "agrees"), [("1 failed", True), ("1 passed", False)])
def test_a_page_that_shows_something_else_is_outdated(
    tmp_path: Path, warm: Warm, outcome: str, *, agrees: bool
) -> None:
    """Blocks are written, changed and run, and what the page shows is compared with the outcome."""
    path = tmp_path / "page.md"
    path.write_text(PAGE.replace("OUTCOME", outcome), encoding="utf-8")
    (example,) = Reader(read(path), tmp_path, warm).follow()
    assert agrees is example.agrees


def test_only_the_wanted_parts_are_shown() -> None:
    """Dots stand for what is left out, at the place where it was."""
    wanted = [
        "...",
        "____________________________ test_a[final_step] ________________________________",
        "checkpoint contract broken: final_step",
        "...",
        "========================= 1 failed, 1 passed in 1.20s ==========================",
    ]
    assert wanted == shown(OUTPUT.splitlines(), "messages, end")


@pytest.mark.parametrize(
    ("expected", "found", "agrees"),
    [
        ("step 5 differs", "step 6 differs", False),
        ("norm 0.8196", "norm 0.8201", True),
        ("norm 2.3e-01", "norm 1.9e-02", True),
        ("=== 2 passed in 1.20s ===", "==== 2 passed in 11.4s ====", True),
        ("=== 2 passed in 1.20s ===", "=== 2 passed in 71.20s (0:01:11) ===", True),
        ("=== 2 passed in 1.20s ===", "=== 3 passed in 1.20s ===", False),
        ("one line that\n  goes on", "one line\n  that goes on", True),
        ("kept /tmp/pytest-of-a/pytest-1/x", "kept /var/t/pytest-of-b/pytest-22/x", True),
    ],
)
def test_figures_and_line_breaks_may_differ_and_words_may_not(expected: str, found: str, *, agrees: bool) -> None:
    """Norms, durations, widths and temporary folders are those of a machine; steps and counts are not."""
    assert agrees is (comparable(expected.splitlines()) == comparable(found.splitlines()))


def test_nothing_of_the_machine_is_written_into_a_page() -> None:
    """The base temporary directory is replaced, also where pytest runs within pytest."""
    text = portable("kept /tmp/pytest-of-a/pytest-1/popen-gw0/x0/pytest-of-a/pytest-0/test_x0/job")
    assert "kept /tmp/pytest-of-you/pytest-0/test_x0/job" == text
