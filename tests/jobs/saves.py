"""Plain loops that differ in how they save: in place or by a rename, in a thread or not, and in what they do with errors."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import cross_entropy

from jobs import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_ckpt import Job

LAST: Final = 8
EVERY: Final = 2


def loop(
    save: Callable[[dict[str, Any], Path], None],
    *,
    name: str = "step_{step}.pt",
    find: Callable[[Path], Path | None] | None = None,
    finish: Callable[[], None] = lambda: None,
) -> Callable[[Job], None]:
    """Return a loop that saves every second step by `save`, and starts again from what `find` says.

    Args:
        find: the path to load; by default the one with the highest number.
        finish: called when all is trained.
    """
    search = find or (lambda folder: highest(folder, name))

    def train(job: Job) -> None:
        torch.manual_seed(0)
        model = plain.network()
        update = torch.optim.AdamW(model.parameters(), lr=0.05)
        path = search(job.path) if job.restarting else Path(job.resume_from) if job.resume_from else None
        start = 0
        if path is not None:
            state = load(path)
            model.load_state_dict(state["model"])
            update.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            start = state["step"]
        for step in range(start + 1, LAST + 1):
            inputs, targets = plain.batch(step)
            update.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            update.step()
            if step % EVERY == 0:
                state = {"model": model.state_dict(), "optimizer": update.state_dict(), "rng": torch.get_rng_state()}
                save({**state, "step": step}, job.path / name.format(step=step))
        finish()

    return train


def load(path: Path) -> dict[str, Any]:
    """Load a file, or a folder of two."""
    if path.is_file():
        return dict(torch.load(path, weights_only=False))
    return {**torch.load(path / "model.pt"), **torch.load(path / "state.pt", weights_only=False)}


def highest(folder: Path, name: str) -> Path | None:
    """Find what is called so with the highest number."""
    named = [path for path in folder.glob(name.replace("{step}", "*")) if path.suffix != ".tmp"]
    return max(named, key=lambda path: int([0, *re.findall(r"\d+", path.name)][-1]), default=None)


def whole(folder: Path) -> Path | None:
    """Find the newest that can be loaded."""
    for path in sorted(folder.glob("step_*.pt"), key=lambda path: int(re.findall(r"\d+", path.name)[-1]), reverse=True):
        try:
            load(path)
        except Exception:  # noqa: BLE001, S112 - whatever a cut file raises
            continue
        return path
    return None


def in_place(state: dict[str, Any], path: Path) -> None:
    """Write to the name itself."""
    torch.save(state, path)


def renamed(state: dict[str, Any], path: Path) -> None:
    """Write to a temporary name, make it durable, and rename; leave nothing where that fails."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def folder_renamed(state: dict[str, Any], path: Path) -> None:
    """Write two files into a temporary folder and rename that."""
    temporary = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    torch.save({"model": state["model"]}, temporary / "model.pt")
    torch.save({key: value for key, value in state.items() if key != "model"}, temporary / "state.pt")
    temporary.rename(path)


class InThread:
    """Saves in a thread.

    Args:
        tells: whether an error of the thread is raised at the next save, and at the end.
    """

    def __init__(self, *, tells: bool) -> None:
        self._tells = tells
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, state: dict[str, Any], path: Path) -> None:
        """Begin a save, once the one before has ended."""
        self.finish()
        copied = {key: _copied(value) for key, value in state.items()}
        self._thread = threading.Thread(target=self._run, args=(copied, path))
        self._thread.start()

    def finish(self) -> None:
        """Wait for the save."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, state: dict[str, Any], path: Path) -> None:
        try:
            renamed(state, path)
        except OSError as error:
            if not self._tells:
                raise
            self._error = error


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return {key: _copied(one) for key, one in value.items()} if isinstance(value, dict) else value
