"""The page of architectures agrees with the installed transformers, and what it lists trains."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import transformers

from architectures.page import PAGE, page
from architectures.training import Trained, train
from architectures.trying import try_all
from pytest_ckpt.tiny.architectures import registered

if TYPE_CHECKING:
    from collections.abc import Sequence


def listed(title: str) -> list[str]:
    """Return the model types in a section of the page."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    return re.findall(r"(?:^\| |^|, |,\n)`([^`]+)`", section, flags=re.MULTILINE)


def counted() -> Sequence[str]:
    """Return what the page says in its summary: how many, the version, and how many train."""
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    found = re.search(r"Of (\d+) model types of transformers ([\w.]+), (\d+) \((\d+) %\) do\.", text)
    assert found is not None
    return found.groups()


def test_the_page_has_every_registered_architecture_once() -> None:
    """Each is either among those that train or has a reason why it does not."""
    total, version, good, _ = counted()
    if version != transformers.__version__:
        pytest.skip(f"the page is of transformers {version}")
    trains, others = listed("Those that do"), listed("Those that do not")
    assert sorted(registered("causal language model")) == sorted([*trains, *others])
    assert (int(total), int(good)) == (len(trains) + len(others), len(trains))


def test_nearly_all_architectures_train() -> None:
    """That is what the shrink by names is for."""
    assert int(counted()[3]) >= 95


@pytest.mark.parametrize("arch", ["apertus", "dory", "gemma3", "mllama", "olmo2", "phi4_multimodal", "zamba2"])
def test_an_architecture_of_the_page_trains(arch: str) -> None:
    """A handful of those that the page lists: plain ones, hybrids, and parts of models that also see."""
    if counted()[1] != transformers.__version__:
        pytest.skip(f"the page is of transformers {counted()[1]}")
    assert arch in listed("Those that do")
    assert not train(arch).problem


def test_the_page_tells_numbers_and_reasons() -> None:
    """A reason may hold what would end a cell of the table."""
    tried = [Trained(model_type="llama", size=98944), Trained(model_type="odd", problem="no | of <it>")]
    text = page(tried, "9.9")
    assert "Of 2 model types of transformers 9.9, 1 (50 %) do. Half of those have weights of at most 98 kB" in text
    assert "| `odd` | no \\| of &lt;it> |" in text


def test_an_architecture_that_does_not_train_is_a_line() -> None:
    """It is tried in a process of its own, so its end is not ours."""
    told: list[Trained] = []
    assert told == try_all([], told.append)
    (one,) = try_all(["git"], told.append)
    assert "its loss skips as many tokens as an image has, so that text alone has no loss" == one.problem
    assert [one] == told
