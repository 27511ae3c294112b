"""The plugin: markers become items, an item becomes a verdict, and the session ends with a section on them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import pytest

from pytest_ckpt import settings as options
from pytest_ckpt.fixtures import (  # noqa: F401 - pytest finds fixtures in the plugin's module
    ckpt_job,
    ckpt_run,
    tiny_causal_lm,
    tiny_classifier,
    tiny_text,
    tiny_tokenizer,
    tiny_torch_model,
    tiny_vectors,
)
from pytest_ckpt.settings import settings_key
from pytest_ckpt.shell.collecting import PARAMETER, contract_names, keep_own_marks, late, report_problems, tie
from pytest_ckpt.shell.known import asked_key, frameworks_of, is_contract_item, registry_of, sweep_key, test_key
from pytest_ckpt.shell.names import BUILTIN, DEFAULT_SET, PREFIX, SWEEP, sweep_mark

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from pytest_ckpt.records.verdict import JobResult
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.shell.jobs import JobSession
    from pytest_ckpt.shell.marks import Asked
    from pytest_ckpt.shell.seeding import Seeding


class _Worker(Protocol):
    """A worker of pytest-xdist, as far as it is used here."""

    @property
    def workeroutput(self) -> Mapping[str, list[str]]:
        """What it has left at its end; a worker that crashed has no such attribute."""


jobs_key: pytest.StashKey[JobSession] = pytest.StashKey()
result_key: pytest.StashKey[JobResult] = pytest.StashKey()
seeds_key: pytest.StashKey[Seeding] = pytest.StashKey()


# -- the session -----------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Let others add contracts and frameworks."""
    from pytest_ckpt import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Resolve the options and declare a marker for each contract."""
    config.stash[settings_key] = options.resolve(config)
    if config.getoption("markers") or config.hook.pytest_ckpt_contracts.get_hookimpls():
        lines = list(registry_of(config).lines())
    else:  # most runs ask for no contract; loading them takes longer than all the rest
        lines = [
            f"{PREFIX}{name}: a checkpoint contract, see pytest --markers" for name in (DEFAULT_SET, SWEEP, *BUILTIN)
        ]
    for line in lines:
        config.addinivalue_line("markers", line)
    if config.hook.pytest_ckpt_frameworks.get_hookimpls():
        frameworks_of(config)  # what is wrong with them had better be told now
    if config.stash[settings_key].enabled:
        from pytest_ckpt.shell.summary import Summary

        config.pluginmanager.register(Summary(config), "ckpt-summary")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say that contracts are checked, and how."""
    settings = config.stash[settings_key]
    if not settings.enabled:
        return None
    from pytest_ckpt import __version__

    return f"ckpt: contracts on, pytest-ckpt {__version__}, device {settings.device}"


# -- markers become items --------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Make an item of each contract that a test asks for; after all others, so that the contract ends the item's name."""
    result = yield
    names = contract_names(metafunc)
    if names:
        if sweep_mark(metafunc.definition) is not None:
            from pytest_ckpt.shell.sweeps import take_arguments

            take_arguments(metafunc)
        metafunc.fixturenames.append(PARAMETER)
        metafunc.parametrize(PARAMETER, names, ids=names)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Check every marker's arguments, and tie each item to its contract; then look for markers that came too late."""
    report_problems(config, items, [problem for item in items if (problem := tie(config, item))])
    keep_own_marks([item for item in items if is_contract_item(item)])
    result = yield
    report_problems(config, items, [told for item in items if (told := late(item))])
    return result


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Worker) -> None:
    """Say in the controller what a worker has found wrong with the markers."""
    problems = getattr(node, "workeroutput", {}).get("ckpt_problems")
    if problems:
        raise pytest.UsageError("\n".join(problems))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which contracts of each test are left after selection: its job is run for those."""
    config = session.config
    tests: dict[str, dict[str, Asked]] = {}
    for item in session.items:
        if is_contract_item(item):
            asked = item.stash[asked_key]
            tests.setdefault(item.stash[test_key], {})[asked.contract.name] = asked
    if tests and config.stash[settings_key].enabled and not _only_looks(config):
        from pytest_ckpt.shell.jobs import job_session

        config.stash[jobs_key] = job_session(config, tests)


def _only_looks(config: pytest.Config) -> bool:
    """Say whether a session shows tests and fixtures and calls no test."""
    return any(config.getoption(name, default=False) for name in ("collectonly", "setuponly", "setupplan"))


# -- an item becomes a verdict ---------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Set up the fixtures and run the job of a test, unless an earlier item of the same test has."""
    if not (is_contract_item(item) and jobs_key in item.config.stash and isinstance(item, pytest.Function)):
        return (yield)
    from pytest_ckpt.shell.jobs import missing_torch, only_new_objects
    from pytest_ckpt.shell.verdicts import raise_if_failed

    if why := missing_torch():
        item.fixturenames = []
        yield  # the set-up of other plugins, whose tear-down follows
        pytest.skip(why)
    jobs, test = item.config.stash[jobs_key], item.stash[test_key]
    result = jobs.known(test)
    told = result is not None
    if result is not None:
        item.fixturenames = []  # they were set up once, for the item that ran the job
        outcome = yield
    else:
        with only_new_objects():
            outcome = yield
            result = _run(item, jobs, test)
    item.stash[result_key] = result
    raise_if_failed(result, told=told)
    return outcome


def _run(item: pytest.Function, jobs: JobSession, test: str) -> JobResult:
    """Run the job of a test, whose fixtures have been set up."""
    from pytest_ckpt.shell.debugger import call_in_process, without_breakpoints
    from pytest_ckpt.shell.marks import fixtures_of
    from pytest_ckpt.shell.trainers import live_trainers, warning_on

    sweep = item.stash.get(sweep_key, None)
    if sweep is not None:
        item.funcargs.update(sweep.first)  # for a debugger
    arguments = fixtures_of(item.obj, item.funcargs)
    body = partial(item.obj, **arguments)
    job = cast("Job", item.funcargs["ckpt_job"])
    trainers = live_trainers(arguments, jobs.frameworks)
    for name, trainer in trainers.items():
        item.warn(warning_on(name, trainer))
    if item.config.getoption("usepdb") or item.config.getoption("trace"):
        call_in_process(item, job)
        body = partial(without_breakpoints, body)
    return jobs.run(test, job, body, reseed=not trainers, sweep=sweep)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Seed the global random generators before the first fixture of a job, so that each session builds the same."""
    del fixturedef
    item = request.node
    if isinstance(item, pytest.Item) and is_contract_item(item) and seeds_key not in item.stash:
        from pytest_ckpt.shell.seeding import Seeding

        item.stash[seeds_key] = Seeding(item.stash[test_key])
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Give the verdict of an item's contract in place of calling the test function, which is the job."""
    if result_key not in pyfuncitem.stash:
        return None
    from pytest_ckpt.shell.verdicts import conclude

    conclude(pyfuncitem.stash[result_key], pyfuncitem.stash[asked_key], pyfuncitem.nodeid)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Put the random generators back, and let other workers take the test's job."""
    try:
        return (yield)
    finally:
        if seeds_key in item.stash:
            item.stash[seeds_key].restore()
            del item.stash[seeds_key]
        if is_contract_item(item) and jobs_key in item.config.stash:
            item.config.stash[jobs_key].release(item.stash[test_key])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put what the item came to on its report: that is what crosses from a worker to the controller."""
    report = yield
    if is_contract_item(item) and jobs_key in item.config.stash:
        from pytest_ckpt.shell.summary import annotate

        annotate(item, report, item.stash[asked_key].contract.name, item.stash.get(result_key, None))
    return report
