"""How a program that the job has started came to fail: what it said itself, since an exit code says nothing."""

from __future__ import annotations

import json
import re
import signal
import sys
import traceback
from contextlib import suppress
from subprocess import CalledProcessError
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

#: What launchers raise where a process of theirs has failed.
_LAUNCHERS: Final = frozenset({"CalledProcessError", "ChildFailedError"})
#: The last line of a traceback, also one of a rank, and what argparse says before it leaves.
_ERROR: Final = re.compile(
    r"^(?:\[rank\d+\]: *)?((?:[\w.]*\.)?(\w+(?:Error|Exception|Interrupt))\b.*|\S+: error: .*)$", re.MULTILINE
)

#: What the runtime of C++ says where a thread of torch's gloo backend still has tensors as Python is gone.
_ABORTED: Final = "terminate called without an active exception"
_OUTLIVED: Final = (
    f"{_ABORTED}: a thread of gloo may have outlived Python in one of its processes, which torch does not prevent; let all call "
    "torch.distributed.destroy_process_group() and gc.collect() before they end"
)


def tell_errors(folder: Path) -> None:
    """Have the exception that ends this process written down, for the first process that one ends."""
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if kind.__name__ not in _LAUNCHERS:
            with suppress(OSError), _file(folder).open("x", encoding="utf-8", errors="backslashreplace") as file:
                message = "".join(traceback.format_exception_only(error)).strip()
                text = "".join(traceback.format_exception(kind, error, trace))
                json.dump({"message": message, "traceback": text}, file)
        usual(kind, error, trace)

    sys.excepthook = hook


def _file(folder: Path) -> Path:
    return folder / "program-failed.json"


class ProgramFailed(CalledProcessError):
    """A program that the job has started ended with another exit code than 0, or by a signal."""

    def told(self, folder: Path, stderr: Path) -> dict[str, Any]:
        """Return how it ended: its own error with the traceback, else what it said last, and its exit code or signal.

        Args:
            folder: where `tell_errors` writes in the program's processes.
            stderr: what the program has put out.
        """
        code = self.returncode
        text = stderr.read_text(encoding="utf-8", errors="replace")
        if code < 0:
            how, said = f"the program was killed by {name_of(-code)}", _OUTLIVED if _ABORTED in text else ""
        elif _file(folder).exists():
            return {"exit_code": code, **json.loads(_file(folder).read_text(encoding="utf-8"))}
        else:
            how, said = f"the program left with exit code {code}", _said(text)
        ended = {"exit_code": code, "signal": None} if code >= 0 else {"exit_code": None, "signal": -code}
        return {"message": f"{how}: {said}" if said else how, **ended}


def _said(text: str) -> str:
    """Return the last error that a program put out, else its last line; nothing where that is a launcher's."""
    if _ABORTED in text:
        return _OUTLIVED
    errors = [match for match in _ERROR.finditer(text) if match[2] not in _LAUNCHERS]
    if errors:
        return errors[-1][1]
    lines = [] if any(name in text for name in _LAUNCHERS) else text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def name_of(number: int) -> str:
    """Return the name of a signal, with its number."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:  # a real-time signal has none
        return f"signal {number}"
