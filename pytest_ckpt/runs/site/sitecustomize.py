"""What Python imports first in the programs that a job starts: has them looked at, after what would have been imported here."""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _give_way() -> None:
    """Run the module of this name that there would be without this one."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - each program pays for what is imported
    spec = PathFinder.find_spec(__name__, [path for path in sys.path if os.path.abspath(path) != here])  # noqa: PTH100
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


_give_way()
# workers that multiprocessing starts, such as those that load data, have the environment of the process that trains
if (
    os.environ.get("PYTEST_CKPT_PROGRAM")
    and os.environ.get("RANK", "0") == "0"
    and "--multiprocessing-fork" not in sys.orig_argv
):
    from pytest_ckpt.runs.program import arrive

    arrive(os.environ["PYTEST_CKPT_PROGRAM"])
