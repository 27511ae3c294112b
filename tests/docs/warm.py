"""A Python that has imported the frameworks and becomes pytest as often as it is asked to, each time in a fork of itself.

Importing takes seconds, and the pages have dozens of commands. Started by `tests.docs.running.Warm` as a program.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def main() -> None:
    """Answer a request a line: run pytest in a folder with its output in a file, and tell the exit status."""
    import pytest
    import torch
    import transformers

    del sys.path[0]  # the folder of this file; `pytest` has none in its place
    _ = pytest.main, torch.optim, transformers.Trainer  # loads them
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            become_pytest(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the answer


def become_pytest(request: Mapping[str, Any]) -> NoReturn:
    """Be what `pytest ARGUMENTS`, or `python -m pytest_ckpt ARGUMENTS`, is in that folder and environment."""
    import pytest

    from pytest_ckpt import command

    code = 70
    try:
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(descriptor, target)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        programs: Mapping[str, Callable[[list[str]], int]] = {"pytest": pytest.main, "pytest_ckpt": command.main}
        program = programs[request["program"]]
        sys.argv[:] = [request["program"], *request["arguments"]]
        code = int(program(request["arguments"]))
    except BaseException:  # noqa: BLE001 - nothing may go on as if it were the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
