"""Forward passes as training sees them: what enters a model from outside, and the state in which that happens."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from pytest_ckpt.runs import readings
from pytest_ckpt.runs.inventory import buffers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.records.state import Reading
    from pytest_ckpt.runs.inventory import Inventory
    from pytest_ckpt.runs.journal import Journal


class Forwards:
    """Journals the outermost forward passes, and which of them a backward pass came back to: those are trained on."""

    def __init__(self, journal: Journal, inventory: Inventory) -> None:
        self._journal = journal
        self._inventory = inventory
        self._stack: list[int] = []
        self._outputs: list[torch.UntypedStorage] = []
        self._buffers: dict[str, Reading] = {}
        self._rng: dict[str, Reading] = {}
        self._calls = 0

    @property
    def outside(self) -> bool:
        """Whether no module is being called."""
        return not self._stack

    def enter(self, module: torch.nn.Module) -> None:
        """Note that a module is called."""
        self._stack.append(id(module))

    def leave(self, module: torch.nn.Module) -> bool:
        """Note that the call ends; say whether it was the outermost. A call that raised is forgotten with it."""
        if id(module) not in self._stack:
            return False
        while self._stack.pop() != id(module):
            pass
        return self.outside

    def new_step(self) -> None:
        """Begin anew after an update; a stack that is not empty was left by an exception."""
        self._stack.clear()
        self._outputs.clear()

    def begin(self, module: torch.nn.Module) -> None:
        """Read what the outermost call starts from: buffers as they are before the batch enters running statistics."""
        self._inventory.meet(module)
        self._rng = readings.random_states()
        self._buffers = buffers_of(module)

    def end(self, module: torch.nn.Module, args: object, kwargs: object, output: object) -> bool:
        """Journal the outermost call if it can be trained on, and say whether it can."""
        outputs = [leaf for _, leaf in readings.leaves(_plain(output)) if isinstance(leaf, torch.Tensor)]
        trainable = [leaf for leaf in outputs if leaf.requires_grad]
        if not trainable:
            return False
        number = self._inventory.add_root(module)
        label = self._inventory.label(number)
        call = {
            "call": self._calls,
            "module": number,
            "readings": readings.read_tensors(dict(self._inputs(args, kwargs))),
            "rng": self._rng,
            "buffers": {f"{label}:{name}": reading for name, reading in self._buffers.items()},
        }
        self._journal.write("data", call)
        self._outputs.extend(leaf.untyped_storage() for leaf in outputs if leaf.layout is torch.strided)
        self._announce_backward(trainable)
        self._calls += 1
        return True

    def _announce_backward(self, outputs: list[torch.Tensor]) -> None:
        """Journal once that a gradient comes back to a call; an evaluation that forgot `no_grad` has none."""
        tell = functools.cache(functools.partial(self._journal.write, "trained_on", {"call": self._calls}))
        for output in outputs:
            output.register_hook(lambda _: tell())

    def _inputs(self, args: object, kwargs: object) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors that come from outside: not computed from parameters, not another model's output."""
        made = {storage.data_ptr() for storage in self._outputs}
        for path, leaf in (*readings.leaves(_plain(args)), *readings.leaves(_plain(kwargs))):
            if not isinstance(leaf, torch.Tensor) or leaf.requires_grad:
                continue
            if leaf.layout is not torch.strided or leaf.untyped_storage().data_ptr() not in made:
                yield path, leaf


def _plain(value: object) -> object:
    """Return containers that are records or objects of their own kind as plain ones."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, torch.nn.Module, type)) or callable(value):
        return value
    return dict(vars(value)) if hasattr(value, "__dict__") else value
