"""What stands in for a model, an optimizer and batches in a rehearsal; imports torch, so it is imported where that is there.

A stand-in serves what a loop and a save need of the real thing. Where code of the job asks it for more, as a callback that
reads weights does, it says so: what follows from the answer would be worth nothing.
"""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_ckpt.frameworks.protocol import Rehearsing
    from pytest_ckpt.frameworks.stand_in_clock import Clock


#: Packages whose own code is part of the loop, or handles models without looking into them.
_LOOP: Final = frozenset(
    {
        *("torch", "transformers", "accelerate", "peft", "trl", "safetensors", "pytest_ckpt"),
        *("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics"),
        *("axolotl", "llamafactory", "sentence_transformers", "setfit"),
    }
)
#: As long as a message may be that is repeated.
_LONGEST: Final = 240
_OURS: Final = __name__.rpartition(".")[0]
#: Code of Python's own that only passes calls on.
_PASSED_ON: Final = frozenset({"contextlib", "functools", "collections", "copy", "weakref", "_weakrefset"})


class StubReached(RuntimeError):
    """What code of the job meets that asks a stand-in for something that only the real thing has."""


class Watch:
    """Notes who reads of a stand-in what only the real thing has."""

    def __init__(self, asked: Rehearsing) -> None:
        self._reached = asked.reached
        self._give_up = asked.give_up
        self._saving = 0

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let everything be read meanwhile: that is how weights come to disk."""
        self._saving += 1
        try:
            yield
        finally:
            self._saving -= 1

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Take an error of the job's own code for a sign that a stand-in was not enough for it, and end there."""
        try:
            yield
        except StubReached:  # it was told already
            self._give_up()
        except Exception as error:
            if not (told := failing(error)):
                raise
            self._reached(told)
            self._give_up()

    def note(self, what: str) -> bool:
        """Note that something is read, unless the loop itself does; say whether the job does."""
        who = _asker()
        if not who or self._saving:
            return False
        self._reached(f"{who} {what}")
        return True

    def refuse(self, what: str) -> None:
        """Note that something is asked for that can't be had, and end it there."""
        who = _asker() or "the training loop"
        self._reached(f"{who} {what}")
        message = f"{who} {what}; a rehearsal has only a stand-in there."
        raise StubReached(message)


def _asker() -> str:
    """Return the name of the function of the job that asks, empty if the loop does."""
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to the callers
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if not module.startswith(_OURS) and package not in _PASSED_ON:
            name = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
            return "" if package in _LOOP else f"{name} ({module})"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def failing(error: BaseException) -> str:
    """Return which function of the job an error of a rehearsal comes from, and what it says; empty if from none.

    Code of the job that was given a stand-in may fail in its own way.
    """
    found, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in {*_LOOP, *_PASSED_ON} and "-packages" not in frame.f_code.co_filename:
            found = f"{getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)} ({name})"
        trace = trace.tb_next
    said = next(iter(str(error).splitlines()), "")[:_LONGEST]
    return f"{found} fails with {type(error).__name__}: {said}" if found else ""


# -- the model ---------------------------------------------------------------------------------------------------------


class StandIn(torch.nn.Module):
    """One parameter in the place of a model: it counts the updates, so that a file tells of which step it is."""

    def __init__(self, real: torch.nn.Module, watch: Watch) -> None:
        super().__init__()
        self.__dict__["_real"] = real
        self.__dict__["_watch"] = watch
        self.updates = torch.nn.Parameter(torch.full((1,), math.pi, dtype=torch.float64))

    def __getattr__(self, name: str) -> Any:
        """Answer for the real model where the loop asks, such as for its config."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if isinstance(value := getattr(self.__dict__["_real"], name), torch.nn.Module | torch.Tensor):
                self.__dict__["_watch"].note(f"reads {name} of the model")
            return value

    def forward(self, *_: object, **__: object) -> None:
        """Refuse: there is nothing to compute."""
        self._watch.refuse("calls the model")

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Return its one parameter."""
        self._watch.note("reads the parameters of the model")
        return super().named_parameters(*args, **kwargs)

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:  # noqa: FBT001, FBT002 - torch's signature
        """Return its one parameter."""
        self._watch.note("reads the parameters of the model")
        return super().parameters(recurse)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return its one parameter."""
        self._watch.note("reads the state dict of the model")
        found: dict[str, Any] = super().state_dict(*args, **kwargs)
        return found

    def floating_point_ops(self, *_: object, **__: object) -> int:
        """Return that nothing is computed."""
        return 0

    def save_pretrained(self, save_directory: Any, *_: object, **__: object) -> None:
        """Save its one parameter."""
        from pathlib import Path

        from safetensors.torch import save_file

        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        with self._watch.saving():
            save_file(self.state_dict(), folder / "model.safetensors")


class CountingOptimizer(torch.optim.Optimizer):
    """Adds one to the parameter of a stand-in at each update."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], lr: float, clock: Clock) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": 0.0})
        self._clock = clock

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Count, after what the loop does in a closure."""
        answer = None
        if closure is not None:
            with torch.enable_grad():
                answer = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(1.0)
        self._clock.tick()
        return answer
