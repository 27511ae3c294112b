"""The page that sets both tools side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Final

from pytest_ckpt.report.escaping import block, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comparison.cases import Case

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "comparison.md"
#: How the table calls the checks.
_SHORT: Final[Mapping[str, str]] = {
    "assert_checkpoint_loads": "loads",
    "assert_checkpoint_roundtrip": "roundtrip",
    "assert_resume_equivalent": "resume",
}
_ABOUT: Final = """\
# Beside pytest-torch

pytest-torch tests models: that an inference is deterministic and finite, that a compiled, exported or quantized model
agrees with the original, that gradients flow, that metrics and speed hold. pytest-ckpt does none of that. They meet
where training is saved. There pytest-torch has three checks, and this page says what they find of the
[known bugs](bugs.md) of this repository, each on the job that shows it:

* *loads*: `assert_checkpoint_loads` reads a checkpoint into the model and reports names and shapes that do not fit. It is given
  the newest checkpoint that the job leaves.
* *roundtrip*: `assert_checkpoint_roundtrip` saves and loads the weights by itself, in memory, and compares the outputs.
* *resume*: `assert_resume_equivalent` trains in the process of the test, saves, loads into new objects and trains on. It takes a
  training step, a list of batches, and the functions that save and load. A plain loop has these. The trainers of
  transformers and Lightning do not take part with their own loops; it is given what they save and load by, private
  methods among it, with steps written for the test. That is more than most tests would do.

None of them looks at what a trainer's own loop does: which steps it saves, which it deletes again, and in which order a
resumed run reads its data. The fixtures `hf_trainer` and `lightning_trainer` set up a trainer, with saving off unless
asked for, and check nothing that it saves.

{summary}

`tox -e comparison` runs the checks and writes this page. What pytest-ckpt says is asserted by the tests in `tests/bugs`.

| bug | what goes wrong | pytest-torch {theirs} | pytest-ckpt |
|---|---|---|---|
"""
_SAID: Final = """
## What pytest-torch says

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the checks of pytest-torch came to on one bug.

    Attributes:
        passed: names of the checks that find nothing.
        failed: the check that finds something, if one does.
        message: what it says.
        refused: why a check can't be applied.
    """

    passed: tuple[str, ...] = ()
    failed: str = ""
    message: str = ""
    refused: str = ""


def page(compared: Sequence[tuple[Case, Outcome]], *, theirs: str, releases: str) -> str:
    """Return the text of the page.

    Args:
        compared: the bugs that the releases have, and what became of them.
        theirs: version of pytest-torch.
        releases: names and versions of the frameworks.
    """
    found = sum(bool(outcome.failed) for _, outcome in compared)
    by_hand = sum(case.bug.contract == "ckpt_run" for case, _ in compared)
    summary = (
        f"The choice of bugs is ours: published ones of saving and resuming, collected because the contracts are about "
        f"that. Of the {len(compared)} bugs that {releases} have, pytest-torch's checks find {found}. The contracts find "
        f"{len(compared) - by_hand}; the others are found by comparing two runs by hand, with `ckpt_run`."
    )
    about = _ABOUT.format(summary=fill(summary, 120), theirs=theirs)
    said = [
        f"{case.bug.id}:\n\n{block(outcome.message.splitlines())}\n" for case, outcome in compared if outcome.failed
    ]
    return about + "".join(_row(case, outcome) for case, outcome in compared) + _SAID + "\n".join(said)


def _row(case: Case, outcome: Outcome) -> str:
    ours = f"`{case.bug.contract}`: {plain(case.bug.sentence)}"
    return f"| [{case.bug.id}]({case.bug.source}) | {case.fact} | {_theirs(outcome)} | {ours} |\n"


def _theirs(outcome: Outcome) -> str:
    if outcome.failed:
        return f"**found**: {_SHORT.get(outcome.failed, outcome.failed)}"
    names = ", ".join(_SHORT.get(name, name) for name in outcome.passed)
    passed = f"not found: {names} {'passes' if len(outcome.passed) == 1 else 'pass'}" if names else ""
    refused = f"can't be applied: {plain(outcome.refused)}" if outcome.refused else ""
    return "; ".join(filter(None, (passed, refused))) or "no check looks at this"
