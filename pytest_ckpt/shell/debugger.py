"""A job under the debugger: it is called in pytest's own process, which has the terminal."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from pytest_ckpt.runs.job import Job


def call_in_process(item: pytest.Function, job: Job) -> None:
    """Call a test's job in this process, where a debugger can stop in it, and leave its directory as it was."""
    before = sorted(job.path.iterdir())
    item.ihook.pytest_pyfunc_call(pyfuncitem=item)  # as pytest calls a test: that is where --trace steps in
    for path in set(job.path.iterdir()) - set(before):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def without_breakpoints(body: Callable[..., object], **settings: object) -> object:
    """Call a job, with settings of a sweep, that the debugger has been through already; runs in the job's process."""
    from pytest_ckpt.runs.forgetting import replace_debugger  # only where a debugger was asked for

    replace_debugger(lambda *_, **__: None)
    return body(**settings)
