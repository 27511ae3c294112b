"""The plugin: markers become items, an item becomes a verdict, and the session ends with a section on them."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import pytest

from pytest_ckpt import settings as options
from pytest_ckpt.errors import ContractViolation, InvalidArgument
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
from pytest_ckpt.shell.names import BUILTIN, DEFAULT_SET, PREFIX, contract_marks

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pytest_ckpt.frameworks.protocol import Framework
    from pytest_ckpt.records.verdict import JobResult
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.shell.jobs import JobSession
    from pytest_ckpt.shell.marks import Asked, Registry
    from pytest_ckpt.shell.seeding import Seeding

#: The parameter by which a test's items are told apart; no fixture of a user has this name.
_PARAMETER: Final = "_ckpt_contract"

registry_key: pytest.StashKey[Registry] = pytest.StashKey()
frameworks_key: pytest.StashKey[Sequence[Framework]] = pytest.StashKey()
jobs_key: pytest.StashKey[JobSession] = pytest.StashKey()
asked_key: pytest.StashKey[Asked] = pytest.StashKey()
test_key: pytest.StashKey[str] = pytest.StashKey()
result_key: pytest.StashKey[JobResult] = pytest.StashKey()
seeds_key: pytest.StashKey[Seeding] = pytest.StashKey()


def is_contract_item(item: pytest.Item) -> bool:
    """Say whether an item stands for one contract of one test."""
    return asked_key in item.stash


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
        lines = [f"{PREFIX}{name}: a checkpoint contract, see pytest --markers" for name in (DEFAULT_SET, *BUILTIN)]
    for line in lines:
        config.addinivalue_line("markers", line)
    if config.stash[settings_key].enabled:
        from pytest_ckpt.shell.summary import Summary

        config.pluginmanager.register(Summary(config), "ckpt-summary")


def registry_of(config: pytest.Config) -> Registry:
    """Return the kinds of contracts that this session knows."""
    if registry_key not in config.stash:
        from pytest_ckpt import contracts
        from pytest_ckpt.shell.marks import Registry

        added = [kind for kinds in config.hook.pytest_ckpt_contracts(config=config) for kind in kinds]
        config.stash[registry_key] = Registry([*contracts.builtin(), *added])
    return config.stash[registry_key]


def frameworks_of(config: pytest.Config) -> Sequence[Framework]:
    """Return the adapters of frameworks that this session knows, those added by others first."""
    if frameworks_key not in config.stash:
        from pytest_ckpt import frameworks

        added = [one for some in config.hook.pytest_ckpt_frameworks(config=config) for one in some]
        config.stash[frameworks_key] = (*added, *frameworks.builtin())
    return config.stash[frameworks_key]


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say that contracts are checked, and how."""
    settings = config.stash[settings_key]
    if not settings.enabled:
        return None
    from pytest_ckpt import __version__

    return f"ckpt: contracts on, pytest-ckpt {__version__}, device {settings.device}"


# -- markers become items --------------------------------------------------------------------------------------------


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make an item of each contract that a test asks for; last, so that the contract ends the item's name."""
    marks = contract_marks(metafunc.definition)
    if marks:
        names = _names(registry_of(metafunc.config), marks)
        metafunc.fixturenames.append(_PARAMETER)
        metafunc.parametrize(_PARAMETER, names, ids=names)


def _names(registry: Registry, marks: Sequence[pytest.Mark]) -> list[str]:
    """Return the contracts' names; wrong markers are told of when all tests are collected."""
    try:
        return list(registry.asked(marks))
    except InvalidArgument:
        return ["invalid"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Check every marker's arguments, and tie each item to its contract."""
    problems = dict.fromkeys(problem for item in items if (problem := _tie(config, item)))
    if problems:
        raise pytest.UsageError("\n".join(problems))


def _tie(config: pytest.Config, item: pytest.Item) -> str | None:
    """Note which contract an item stands for; return what is wrong with its markers."""
    marks = contract_marks(item)
    if not marks:
        return None
    callspec = getattr(item, "callspec", None)
    name = str(callspec.params.get(_PARAMETER, "")) if callspec is not None else ""
    test = _without_contract(item.nodeid, name)
    try:
        asked = registry_of(config).asked(marks)
    except InvalidArgument as error:
        return f"{test}: {error}"
    if problem := _unfit(item, name):
        return f"{test}: {problem}"
    item.stash[asked_key] = asked[name]
    item.stash[test_key] = test
    if not config.stash[settings_key].enabled:
        reason = "checkpoint contracts are switched on by --ckpt-contract (or ini ckpt_contract = true)"
        item.add_marker(pytest.mark.skip(reason=reason))
    elif asked[name].xfail:
        item.add_marker(pytest.mark.xfail(reason=asked[name].xfail, raises=ContractViolation))
    return None


def _unfit(item: pytest.Item, name: str) -> str | None:
    """Return why the contracts of a marked item can't be checked."""
    mark = contract_marks(item)[0].name
    if not isinstance(item, pytest.Function) or not name:
        return f"{mark} works on test functions and methods of plain classes, not on {type(item).__name__}"
    if inspect.iscoroutinefunction(item.obj) or inspect.isasyncgenfunction(item.obj):
        return f"{mark} can't run an async test as a training job; make it a plain function"
    if "ckpt_job" not in item.fixturenames:
        return (
            f"{mark} needs the fixture ckpt_job as an argument of the test: it says where to write and to resume from"
        )
    return None


def _without_contract(nodeid: str, name: str) -> str:
    """Return the node id of a test from that of the item for one of its contracts."""
    for suffix in (f"-{name}]", f"[{name}]"):
        if nodeid.endswith(suffix):
            return nodeid.removesuffix(suffix) + ("]" if suffix.startswith("-") else "")
    return nodeid


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which contracts of each test are left after selection: its job is run for those."""
    config = session.config
    tests: dict[str, dict[str, Asked]] = {}
    for item in session.items:
        if is_contract_item(item):
            asked = item.stash[asked_key]
            tests.setdefault(item.stash[test_key], {})[asked.contract.name] = asked
    if tests and config.stash[settings_key].enabled:
        from pytest_ckpt.shell.jobs import JobSession, shared_folder

        config.stash[jobs_key] = JobSession(
            folder=shared_folder(config),
            settings=config.stash[settings_key],
            frameworks=frameworks_of(config),
            asked=tests,
        )


# -- an item becomes a verdict ---------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Set up the fixtures and run the job of a test, unless an earlier item of the same test has."""
    if not (is_contract_item(item) and jobs_key in item.config.stash and isinstance(item, pytest.Function)):
        return (yield)
    from pytest_ckpt.shell.jobs import missing_torch, only_new_objects, raise_if_failed

    if why := missing_torch():
        pytest.skip(why)
    jobs, test = item.config.stash[jobs_key], item.stash[test_key]
    result = jobs.known(test)
    if result is not None:
        item.fixturenames = []  # they were set up once, for the item that ran the job
        outcome = yield
    else:
        with only_new_objects():
            outcome = yield
            result = _run(item, jobs, test)
    item.stash[result_key] = result
    raise_if_failed(result)
    return outcome


def _run(item: pytest.Function, jobs: JobSession, test: str) -> JobResult:
    """Run the job of a test, whose fixtures have been set up."""
    from pytest_ckpt.shell.marks import fixtures_of

    arguments = fixtures_of(item.obj, item.funcargs)
    body = partial(item.obj, **arguments)
    job = cast("Job", item.funcargs["ckpt_job"])
    if item.config.getoption("usepdb") or item.config.getoption("trace"):
        from pytest_ckpt.shell.jobs import rehearse_in_process

        rehearse_in_process(job, body)
    return jobs.run(test, job, body)


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
    from pytest_ckpt.shell.jobs import conclude

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

        annotate(report, item.stash[asked_key].contract.name, item.stash.get(result_key, None))
    return report
