"""The plugin: markers become items, an item becomes a verdict, and the session ends with a section on them."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

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
from pytest_ckpt.shell.known import asked_key, frameworks_of, is_contract_item, registry_of
from pytest_ckpt.shell.names import BUILTIN, DEFAULT_SET, PREFIX, contract_marks

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from pytest_ckpt.records.verdict import JobResult, Verdict
    from pytest_ckpt.runs.job import Job
    from pytest_ckpt.shell.jobs import JobSession
    from pytest_ckpt.shell.marks import Asked, Registry
    from pytest_ckpt.shell.seeding import Seeding


class _Worker(Protocol):
    """A worker of pytest-xdist, as far as it is used here."""

    @property
    def workeroutput(self) -> Mapping[str, list[str]]:
        """What it has left at its end; a worker that crashed has no such attribute."""


#: The parameter by which a test's items are told apart; no fixture of a user has this name.
_PARAMETER: Final = "_ckpt_contract"

jobs_key: pytest.StashKey[JobSession] = pytest.StashKey()
test_key: pytest.StashKey[str] = pytest.StashKey()
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
        lines = [f"{PREFIX}{name}: a checkpoint contract, see pytest --markers" for name in (DEFAULT_SET, *BUILTIN)]
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
    marks = contract_marks(metafunc.definition)
    if marks:
        names = _names(registry_of(metafunc.config), marks)
        metafunc.fixturenames.append(_PARAMETER)
        metafunc.parametrize(_PARAMETER, names, ids=names)
    return result


def _names(registry: Registry, marks: Sequence[pytest.Mark]) -> list[str]:
    """Return the contracts' names; wrong markers are told of when all tests are collected."""
    try:
        return list(registry.asked(marks))
    except InvalidArgument:
        return ["invalid"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Check every marker's arguments, and tie each item to its contract; then look for markers that came too late."""
    _report_problems(config, items, [problem for item in items if (problem := _tie(config, item))])
    _keep_own_marks([item for item in items if is_contract_item(item)])
    result = yield
    _report_problems(
        config, items, [_late(item) for item in items if contract_marks(item) and not is_contract_item(item)]
    )
    return result


def _report_problems(config: pytest.Config, items: list[pytest.Item], problems: Sequence[str]) -> None:
    """End the session with what is wrong, each problem once."""
    if problems and hasattr(config, "workerinput"):  # pytest-xdist takes an exception here for a bug of its own
        items.clear()
        config.workeroutput["ckpt_problems"] = list(dict.fromkeys(problems))  # type: ignore[attr-defined]
    elif problems:
        raise pytest.UsageError("\n".join(dict.fromkeys(problems)))


def _keep_own_marks(items: Sequence[pytest.Item]) -> None:
    """Leave each item the mark of its own contract, so that -m and -k choose contracts one by one."""
    own = {item: _own_marks(item) for item in items}
    for node in {node for item in items for node in item.listchain()}:
        node.own_markers[:] = [mark for mark in node.own_markers if not mark.name.startswith(PREFIX)]
    for item, marks in own.items():
        item.own_markers.extend(marks)


def _own_marks(item: pytest.Item) -> list[pytest.Mark]:
    asked = item.stash[asked_key]
    name = f"{PREFIX}{asked.contract.name}"
    marks = [mark for mark in contract_marks(item) if mark.name in {name, f"{PREFIX}{DEFAULT_SET}"}]
    if asked.marked:
        return [mark for mark in marks if mark.name == name][:1]
    return [*marks[:1], getattr(pytest.mark, name).mark]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: _Worker) -> None:
    """Say in the controller what a worker has found wrong with the markers."""
    problems = getattr(node, "workeroutput", {}).get("ckpt_problems")
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
        broken = pytest.RaisesExc(ContractViolation, check=_is_broken)
        item.add_marker(pytest.mark.xfail(reason=asked[name].xfail, raises=broken))
    return None


def _is_broken(error: BaseException) -> bool:
    """Say whether a contract is broken, and not merely undecided: only that can be expected."""
    verdict: Verdict | None = getattr(error, "verdict", None)
    return verdict is not None and verdict.status == "violated"


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


def _late(item: pytest.Item) -> str:
    """Say that a marker was added when the items of its test were made already."""
    mark = contract_marks(item)[0].name
    return f"{item.nodeid}: {mark} was added when tests had been collected; put it on the function, its class or its module"


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
    if tests and config.stash[settings_key].enabled and not _only_looks(config):
        from pytest_ckpt.shell.jobs import JobSession, shared_folder

        config.stash[jobs_key] = JobSession(
            folder=shared_folder(config),
            settings=config.stash[settings_key],
            frameworks=frameworks_of(config),
            asked=tests,
        )


def _only_looks(config: pytest.Config) -> bool:
    """Say whether a session shows tests and fixtures and calls no test."""
    return any(config.getoption(name, default=False) for name in ("collectonly", "setuponly", "setupplan"))


# -- an item becomes a verdict ---------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Set up the fixtures and run the job of a test, unless an earlier item of the same test has."""
    if not (is_contract_item(item) and jobs_key in item.config.stash and isinstance(item, pytest.Function)):
        return (yield)
    from pytest_ckpt.shell.jobs import missing_torch, only_new_objects, raise_if_failed

    if why := missing_torch():
        item.fixturenames = []
        yield  # the set-up of other plugins, whose tear-down follows
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
    from pytest_ckpt.shell.jobs import rehearse_in_process, without_breakpoints
    from pytest_ckpt.shell.marks import fixtures_of
    from pytest_ckpt.shell.trainers import live_trainers, warning_on

    arguments = fixtures_of(item.obj, item.funcargs)
    body = partial(item.obj, **arguments)
    job = cast("Job", item.funcargs["ckpt_job"])
    trainers = live_trainers(arguments, jobs.frameworks)
    for name, trainer in trainers.items():
        item.warn(warning_on(name, trainer))
    if item.config.getoption("usepdb") or item.config.getoption("trace"):
        rehearse_in_process(item, job)
        body = partial(without_breakpoints, body)
    return jobs.run(test, job, body, reseed=not trainers)


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

        annotate(item, report, item.stash[asked_key].contract.name, item.stash.get(result_key, None))
    return report
