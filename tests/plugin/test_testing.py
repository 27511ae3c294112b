"""`pytest_ckpt.testing` accepts what is fit for the hooks, and lists everything that is wrong with the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from inline_snapshot import snapshot

from pytest_ckpt import contracts, frameworks
from pytest_ckpt.frameworks.protocol import Found
from pytest_ckpt.records.verdict import Advice, Finding, Verdict, held, inconclusive
from pytest_ckpt.testing import check_contract, check_framework

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_ckpt.contracts.base import Contract, Evidence
    from pytest_ckpt.records.experiment import Experiment


@dataclass(frozen=True)
class Good:
    """A contract that never decides anything."""

    name: ClassVar[str] = "good"
    number: int

    @classmethod
    def default(cls) -> Contract | None:
        """Stay out of the default set."""
        return None

    def plan(self, evidence: Evidence) -> Sequence[Experiment]:
        """Need nothing."""
        del evidence
        return []

    def judge(self, evidence: Evidence) -> Verdict:
        """Decide nothing."""
        del evidence
        return inconclusive(self.name, Finding(title="nothing was checked"))


def problems(kind: Any, **arguments: object) -> str:
    """Return what is wrong with a contract."""
    with pytest.raises(AssertionError) as caught:
        check_contract(kind, **arguments)
    return str(caught.value)


def test_a_good_contract() -> None:
    """Arguments that it can't be created without are given."""
    check_contract(Good, number=3)


@pytest.mark.parametrize("kind", contracts.builtin(), ids=lambda kind: kind.name)
def test_the_built_in_contracts(kind: type[Contract]) -> None:
    """They are held to the same."""
    check_contract(kind, **({"n": 3} if kind.name == "count" else {}))


def test_a_contract_that_is_no_dataclass() -> None:
    """Its fields are the arguments of the marker."""

    class Bare:
        """Something."""

    assert snapshot("""\
Bare is not fit to be a contract:
  * it must be a frozen dataclass, whose fields are the marker's arguments\
""") == problems(Bare)
    assert snapshot("""\
Good(number=3) is not fit to be a contract:
  * give the class, not an instance of it\
""") == problems(Good(3))


def test_a_contract_that_can_not_be_created() -> None:
    """The arguments that it needs are asked for."""
    assert snapshot("""\
Good is not fit to be a contract:
  * it can't be created (missing a required argument: 'number'): give check_contract the arguments of a marker\
""") == problems(Good)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """An author mends all of it in one go."""

    @dataclass(frozen=True)
    class Bad(Good):
        name: ClassVar[str] = "not a name"

        @classmethod
        def default(cls) -> Any:
            return 7

        def plan(self, evidence: Evidence) -> Any:
            del evidence
            return ["baseline"]

        def judge(self, evidence: Evidence) -> Verdict:
            del evidence
            return held("other", "all is well")

    assert snapshot("""\
Bad is not fit to be a contract:
  * `name` must be a class variable that can end a marker's name, not 'not a name'
  * its docstring is what `pytest --markers` shows; write one
  * `default` must return an instance or None, not 7
  * `plan` must yield experiments, not ['baseline']
  * the verdict must bear the contract's name 'not a name', not 'other'
  * a job that trained nothing must not come out as held: nothing was checked\
""") == problems(Bad, number=1)


def test_a_contract_that_raises() -> None:
    """A job that did nothing is a job: there is a verdict on it."""

    @dataclass(frozen=True)
    class Raising(Good):
        """A contract that takes things for granted."""

        def judge(self, evidence: Evidence) -> Verdict:
            return held(self.name, str(evidence.baseline.looks[-1]))

    assert snapshot("""\
Raising is not fit to be a contract:
  * judge raised IndexError: tuple index out of range (the place)\
""") == re.sub(r"\(.*\)", "(the place)", problems(Raising, number=1))


def test_a_contract_that_is_not_pure() -> None:
    """Asked twice, it has to say the same."""
    asked: list[int] = []

    @dataclass(frozen=True)
    class Counting(Good):
        """A contract that counts."""

        def judge(self, evidence: Evidence) -> Verdict:
            del evidence
            asked.append(1)
            return inconclusive(self.name, Finding(title=f"asked {len(asked)} times"))

    assert snapshot("""\
Counting is not fit to be a contract:
  * `plan` and `judge` must be pure: asked twice, they answered differently\
""") == problems(Counting, number=1)


class GoodFramework:
    """An adapter for nothing."""

    name = "nothing"
    module = "no_such_framework"

    def attach(self, module: object, observer: object) -> None:
        """Tell nothing."""

    def warm_up(self, module: object) -> None:
        """Have nothing computed."""

    def drives(self, trainer: object) -> bool:
        """Drive nothing."""
        del trainer
        return False

    def train(
        self, trainer: object, resume_from: object, max_steps: int | None, *args: object, **kwargs: object
    ) -> object:
        """Train nothing."""
        del trainer, resume_from, max_steps, args, kwargs
        return None

    def find(self, tree: object, save_dir: str) -> tuple[Found, ...]:
        """Find nothing."""
        del tree, save_dir
        return ()

    def expected_count(self, facts: object, run: object) -> int | None:
        """Expect nothing."""
        del facts, run
        return None

    def promised_steps(self, facts: object, run: object) -> frozenset[int] | None:
        """Promise nothing."""
        del facts, run
        return None

    def required_files(self, checkpoint: object, facts: object) -> tuple[str, ...]:
        """Require nothing."""
        del checkpoint, facts
        return ()

    def advise(self, component: str, checkpoint: object, facts: object) -> Advice:
        """Know nothing."""
        del component, checkpoint, facts
        return Advice()

    def advise_missing_final(self, facts: object, run: object) -> Advice:
        """Know nothing."""
        del facts, run
        return Advice()


def framework_problems(framework: Any) -> str:
    """Return what is wrong with an adapter."""
    with pytest.raises(AssertionError) as caught:
        check_framework(framework)
    return str(caught.value)


@pytest.mark.parametrize("framework", frameworks.builtin(), ids=lambda framework: framework.name)
def test_the_built_in_frameworks(framework: Any) -> None:
    """They are held to the same."""
    check_framework(framework)


def test_a_good_framework() -> None:
    """One that knows nothing does no harm."""
    check_framework(GoodFramework())


def test_a_framework_that_lacks_methods() -> None:
    """They are named; a class is not its instance."""
    assert snapshot("""\
object is not fit to be a framework:
  * it lacks name, module, attach, warm_up, drives, train, find, expected_count, promised_steps, required_files, advise, advise_missing_final\
""") == framework_problems(object())  # noqa: E501 - one line of a message
    assert snapshot("""\
GoodFramework is not fit to be a framework:
  * give an instance, not the class\
""") == framework_problems(GoodFramework)


def test_a_framework_that_takes_everything_for_its_own() -> None:
    """Strangers' objects and files are not."""

    class Greedy(GoodFramework):
        def drives(self, trainer: object) -> bool:
            return bool(trainer)

        def find(self, tree: Any, save_dir: str) -> Any:
            return [Found(path=entry.path) for entry in tree.children(save_dir)]

        def advise_missing_final(self, facts: object, run: object) -> Any:
            del facts, run
            return dict[str, str]()["save_strategy"]

    assert snapshot("""\
Greedy is not fit to be a framework:
  * `drives` must say no to an object that it knows nothing of
  * `find` must return an empty tuple for an empty directory
  * `find` must not take notes.txt or a directory `sub` for a checkpoint
  * advise_missing_final raised KeyError: 'save_strategy' (the place)\
""") == re.sub(r"\(.*\)", "(the place)", framework_problems(Greedy()))


def test_a_framework_whose_module_imports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading the adapter must not load the framework; it may be one that this process has loaded already."""
    (tmp_path / "eager_adapter.py").write_text(
        "import json.tool\nfrom plugin.test_testing import GoodFramework\nclass Eager(GoodFramework): module = 'json.tool'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import eager_adapter  # type: ignore[import-not-found]

    assert snapshot("""\
Eager is not fit to be a framework:
  * importing eager_adapter imports json.tool: import the framework inside functions\
""") == framework_problems(eager_adapter.Eager())
