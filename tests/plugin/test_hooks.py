"""Contracts and frameworks of others, added by a conftest or a plugin, work as the built-in ones do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from inline_snapshot import snapshot

from plugin.test_markers import usage_error

if TYPE_CHECKING:
    from plugin.conftest import Sessions

CONTRACT: Final = '''
from dataclasses import dataclass
from typing import ClassVar

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import Finding, held, violated


@dataclass(frozen=True)
class Small:
    """Each checkpoint has at most `megabytes`."""

    name: ClassVar[str] = "small"
    megabytes: float = 1.0

    def __post_init__(self):
        if self.megabytes <= 0:
            raise InvalidArgument(f"megabytes must be above 0; got {self.megabytes}")

    @classmethod
    def default(cls):
        return None

    def plan(self, evidence):
        return []

    def judge(self, evidence):
        sizes = [entry.size for entry in evidence.baseline.looks[-1].tree.entries if entry.kind == "file"]
        if max(sizes) > self.megabytes * 1e6:
            return violated(self.name, Finding(title=f"a file has {max(sizes)} bytes"))
        return held(self.name, "small")


def pytest_ckpt_contracts(config):
    return [Small]
'''
FRAMEWORK: Final = '''
from pytest_ckpt.frameworks.protocol import Found
from pytest_ckpt.records.run import FrameworkFacts
from pytest_ckpt.records.verdict import Advice


class Loop:
    """The adapter of this repository's own trainer."""

    name = "loop"
    module = "my_loop"

    def attach(self, module, observer):
        observer.framework(FrameworkFacts(name=self.name, version="7", save_dir="."))

    def warm_up(self, module):
        pass

    def drives(self, trainer):
        return type(trainer).__name__ == "MyTrainer"

    def train(self, trainer, resume_from, max_steps, *args, **kwargs):
        return trainer.fit(resume_from)

    def find(self, tree, save_dir):
        return tuple(
            Found(path=entry.path, claimed=int(entry.path[5:-3]))
            for entry in tree.children(save_dir) if entry.path.startswith("step_")
        )

    def expected_count(self, facts, run):
        return 2

    def promised_steps(self, facts, run):
        return frozenset({2, 4})

    def required_files(self, checkpoint, facts):
        return ()

    def advise(self, component, checkpoint, facts):
        return Advice(cause=f"my_loop does not save the {component}.")

    def advise_missing_final(self, facts, run):
        return Advice(fix="call my_loop.save() once more.")


def pytest_ckpt_frameworks(config):
    return [Loop()]
'''


def test_a_contract_in_a_conftest(sessions: Sessions) -> None:
    """It has a marker with arguments that are checked, an item, and a verdict."""
    sessions.pytester.makeconftest(CONTRACT)
    sessions.write(
        """
        @pytest.mark.ckpt_small
        @pytest.mark.ckpt_final_step
        def test_fits(ckpt_job):
            train(ckpt_job)

        @pytest.mark.ckpt_small(megabytes=0.001)
        def test_does_not(ckpt_job):
            train(ckpt_job)
        """
    )
    result = sessions("--strict-markers", "-W", "error::pytest.PytestUnknownMarkWarning")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.re_match_lines(["checkpoint contract broken: small", r"  a file has \d+ bytes"])
    sessions.without_contracts("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.ckpt_small(megabytes=1.0, *, xfail=None): Each checkpoint has at most `megabytes`."]
    )
    sessions.write("@pytest.mark.ckpt_small(0)\ndef test_job(ckpt_job): pass")
    assert snapshot("""\
test_jobs.py::test_job: ckpt_small(0): megabytes must be above 0; got 0. Right:
  ckpt_small(megabytes=1.0, *, xfail=None)\
""") == usage_error(sessions())


@pytest.mark.parametrize(
    ("method", "body", "expected"),
    [
        ("plan", "raise ValueError('too deep')", "the contract itself failed: ValueError: too deep"),
        ("judge", "raise ValueError('too deep')", "the contract itself failed: ValueError: too deep"),
        ("judge", "return None", "the contract's judge returned None"),
        (
            "judge",
            "import pytest_ckpt; return pytest_ckpt.Verdict(contract='small', status='green', sentence='')",
            "'green'",
        ),
    ],
)
def test_a_contract_that_fails(sessions: Sessions, method: str, body: str, expected: str) -> None:
    """It is told so, with its own line, and the other contracts of the test have their verdicts."""
    own = f"    def {method}(self, evidence):\n        {body}\n"
    sessions.pytester.makeconftest(CONTRACT.replace(f"    def {method}(", f"{own}\n    def unused("))
    sessions.write(
        """
        @pytest.mark.ckpt_small
        @pytest.mark.ckpt_final_step
        def test_job(ckpt_job):
            train(ckpt_job)
        """
    )
    result = sessions()
    result.assert_outcomes(passed=1, failed=1)
    assert expected in " ".join(result.stdout.str().split())


def test_a_contract_in_a_plugin(sessions: Sessions) -> None:
    """A plugin that is named on the command line adds as well."""
    sessions.pytester.makepyfile(my_contracts=CONTRACT)
    sessions.write("@pytest.mark.ckpt_small\ndef test_job(ckpt_job): train(ckpt_job)")
    sessions.pytester.syspathinsert()
    sessions("-p", "my_contracts").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("[Small, Small]", snapshot("two contracts are called 'small': conftest.Small and conftest.Small")),
        ("Small", snapshot("pytest_ckpt_contracts returned <class 'conftest.Small'>: return a list")),
        (
            "[Small()]",
            snapshot("""\
pytest_ckpt_contracts returned Small(megabytes=1.0): return classes with a `name` that can end a
  marker's\
"""),
        ),
        (
            "['small']",
            snapshot("pytest_ckpt_contracts returned 'small': return classes with a `name` that can end a marker's"),
        ),
    ],
)
def test_an_answer_that_is_no_contract(sessions: Sessions, answer: str, expected: str) -> None:
    """The session ends with one clean error."""
    sessions.pytester.makeconftest(CONTRACT.replace("return [Small]", f"return {answer}"))
    sessions.write("@pytest.mark.ckpt_final_step\ndef test_job(ckpt_job): train(ckpt_job)")
    assert expected == usage_error(sessions())


def test_a_name_that_is_taken(sessions: Sessions) -> None:
    """Two contracts of one name are an error, also where one is built in."""
    for name in ("count", "contract"):
        sessions.pytester.makeconftest(CONTRACT.replace('"small"', f'"{name}"'))
        assert f"two contracts are called '{name}'" in usage_error(sessions())


LOOP: Final = """
    import my_loop

    class MyTrainer:
        def __init__(self, job): self.job = job
        def fit(self, resume_from): train(self.job, **SETTINGS)

    @pytest.mark.ckpt_contract
    def test_job(ckpt_job):
        ckpt_job.train(MyTrainer(ckpt_job))
"""


def test_a_framework_in_a_conftest(sessions: Sessions) -> None:
    """Its trainers are driven by the job, and it knows which checkpoints there should be."""
    sessions.pytester.makeconftest(FRAMEWORK)
    sessions.pytester.makepyfile(my_loop="")
    sessions.write(LOOP.replace("**SETTINGS", ""))
    outcomes = sessions.outcomes()
    assert {"passed", "skipped"} == set(outcomes.values())
    assert {"passed"} == {outcomes[f"test_job[{name}]"] for name in ("final_step", "steps", "count", "resumable")}


def test_a_framework_gives_advice(sessions: Sessions) -> None:
    """Causes and fixes are told in its words."""
    sessions.pytester.makeconftest(FRAMEWORK)
    sessions.pytester.makepyfile(my_loop="")
    sessions.write(LOOP.replace("**SETTINGS", 'every=3, save_last=False, forget=["optimizer"]'))
    result = sessions()
    assert 4 == result.parseoutcomes()["failed"]
    result.stdout.fnmatch_lines(["  fix: call my_loop.save() once more."])
    result.stdout.fnmatch_lines(["  my_loop does not save the optimizer."])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            "[Loop]",
            snapshot("""\
pytest_ckpt_frameworks returned <class 'conftest.Loop'>: return objects with the methods of
  pytest_ckpt.Framework\
"""),
        ),
        ("[object()]", snapshot("pytest_ckpt_frameworks returned <object object")),
        ("7", snapshot("pytest_ckpt_frameworks returned 7: return a list")),
    ],
)
def test_an_answer_that_is_no_framework(sessions: Sessions, answer: str, expected: str) -> None:
    """The session ends with one clean error."""
    sessions.pytester.makeconftest(FRAMEWORK.replace("return [Loop()]", f"return {answer}"))
    sessions.write("@pytest.mark.ckpt_final_step\ndef test_job(ckpt_job): train(ckpt_job)")
    message = usage_error(sessions())
    assert expected == message.partition(" at 0x")[0]
