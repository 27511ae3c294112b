"""Putting back, in a process forked from pytest, what pytest and its plugins have put in place for themselves."""

from __future__ import annotations

import atexit
import faulthandler
import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from pytest_ckpt.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a Python program starts with; all other signals have their default action.
_FIRST_HANDLERS: Final[dict[str, Any]] = {
    "SIGINT": signal.default_int_handler,
    "SIGPIPE": signal.SIG_IGN,
    "SIGXFSZ": signal.SIG_IGN,
}


def reset_signals() -> None:
    """Give every signal the meaning it has when Python starts; those that are blocked stay so."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    for name, handler in _FIRST_HANDLERS.items():
        signal.signal(getattr(signal, name), handler)


def forget_pytest() -> None:
    """Put back what pytest and its plugins have put in place for themselves."""
    faulthandler.disable()
    reset_signals()
    _forget_exit_functions()
    _forget_log_handlers()
    replace_debugger(no_terminal)
    sys.excepthook = sys.__excepthook__
    sys.unraisablehook = sys.__unraisablehook__
    threading.excepthook = threading.__excepthook__


def _forget_log_handlers() -> None:
    """Take away the handlers of pytest, and what others hold of its captured streams, where nobody would find the records."""
    for handler in list(logging.getLogger().handlers):
        if _is_of_pytest(handler) and not hasattr(handler, "records"):  # those stay in memory, for caplog
            logging.getLogger().removeHandler(handler)
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]  # noqa: SLF001 - each logger has its own
        handler = reference()
        if isinstance(handler, logging.StreamHandler) and _is_of_pytest(handler.stream):
            handler.stream = sys.stderr


def replace_debugger(action: Callable[..., None]) -> None:
    """Have something else done at a breakpoint than to start the debugger, which would ask the terminal of pytest."""
    sys.breakpointhook = action
    for module in (sys.modules.get("pdb"), sys.modules.get("pytest")):
        if module is not None:
            vars(module)["set_trace"] = action


def no_terminal(*_: object, **__: object) -> None:
    """Say at a breakpoint what to do instead.

    Raises:
        HarnessError: always.
    """
    message = "a debugger has no terminal in the process of a job; pytest --pdb calls the job in its own process first"
    raise HarnessError(message)


def _is_of_pytest(value: object) -> bool:
    return type(value).__module__.startswith("_pytest.")


def _forget_exit_functions() -> None:
    """Forget what pytest would do at its exit, such as to delete files that it still uses.

    Of multiprocessing and executors, only the part that concerns the job's own processes and threads is kept.
    """
    atexit._clear()  # noqa: SLF001 - there is no other way
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util and process:
        end, children = util._exit_function, process.active_children  # noqa: SLF001 - as above
        theirs = frozenset(children())  # those of pytest, which it would take for ours and kill
        atexit.register(end, active_children=lambda: set(children()) - theirs)
    for name, waited_for in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        getattr(sys.modules.get(f"concurrent.futures.{name}"), waited_for, {}).clear()  # one of them may be this thread
