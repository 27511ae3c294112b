"""The inventory knows the models, optimizers and averages of a training process and reads their state."""

from __future__ import annotations

import weakref
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from pytest_ckpt.runs import discover, readings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from pytest_ckpt.records.state import Component, Reading
    from pytest_ckpt.runs.discover import Found


class Inventory:
    """Grows as objects are met; names are stable across runs of one job, because they follow the order of first use."""

    def __init__(self) -> None:
        self.roots: list[torch.nn.Module] = []
        self._labels: list[str] = []
        self._met: dict[int, tuple[weakref.ref[torch.nn.Module], str]] = {}
        self._kinds: Counter[str] = Counter()
        self._optimizers: list[torch.optim.Optimizer] = []
        self._places: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._proper_names: dict[int, str] = {}
        self._frozen: dict[int, tuple[tuple[int, int], Reading]] = {}
        self._found: Found = discover.Found()

    # -- what is known -----------------------------------------------------------------------------------------------

    def meet(self, module: torch.nn.Module) -> str:
        """Return the label of a module that is called from outside any other: numbered among its kind, in the order of calls.

        Those that are not trained count as well: one that is frozen at first has the same label in a process that resumes
        when it is not.
        """
        known, label = self._met.get(id(module), (None, ""))
        if known is None or known() is not module:
            kind = type(module).__name__
            self._kinds[kind] += 1
            label = kind if self._kinds[kind] == 1 else f"{kind}#{self._kinds[kind]}"
            self._met[id(module)] = (weakref.ref(module), label)
        return label

    def add_root(self, module: torch.nn.Module) -> int:
        """Remember a module that is trained, called from outside any other, and return its number."""
        for number, root in enumerate(self.roots):
            if root is module:
                return number
        label = self.meet(module)
        self.roots.append(module)
        self._labels.append(label)
        self._name_parameters(module, label)
        return len(self.roots) - 1

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> int:
        """Remember an optimizer, and return its number."""
        for number, known in enumerate(self._optimizers):
            if known is optimizer:
                return number
        self._optimizers.append(optimizer)
        return len(self._optimizers) - 1

    def new_step(self) -> None:
        """Count the optimizers anew: in keys they bear their place in a step, which is the same in a resumed process."""
        self._places = {}

    def label(self, number: int) -> str:
        """Return the name of a root in keys of readings."""
        return self._labels[number]

    def owners(self) -> list[int]:
        """Return the numbers of the roots that own a parameter which an optimizer updates, be it one that is still idle."""
        known = (*self._optimizers, *self._found.optimizers)
        trained = {id(parameter) for optimizer in known for parameter in readings.parameters_of(optimizer)}
        return [
            number
            for number, root in enumerate(self.roots)
            if any(id(parameter) in trained for parameter in root.parameters())
        ]

    def renamed(self) -> dict[str, str]:
        """Return the names in models of parameters that were met in an optimizer first, by the names used until then."""
        return {
            name: self._proper_names[identity]
            for identity, name in self._names.items()
            if self._proper_names.get(identity, name) != name
        }

    def search(self) -> None:
        """Look for schedulers, scalers and averages that belong to what is trained."""
        self._found = discover.search(list(self._families()))

    def _trained(self) -> Iterator[torch.Tensor]:
        return chain.from_iterable(readings.parameters_of(optimizer) for optimizer in self._optimizers)

    def _families(self) -> Iterator[dict[str, torch.Tensor]]:
        trained = {id(parameter) for parameter in self._trained()}
        for root in self.roots:
            yield {name: value for name, value in root.named_parameters() if id(value) in trained}

    def _name_parameters(self, module: torch.nn.Module, label: str) -> None:
        for name, parameter in module.named_parameters():
            proper = self._proper_names.setdefault(id(parameter), f"{label}:{discover.plain_name(name)}")
            self._names.setdefault(id(parameter), proper)

    def _name(self, optimizer: torch.optim.Optimizer, group: int, index: int, parameter: torch.Tensor) -> str:
        default = f"optimizer{self.add_optimizer(optimizer)}:group{group}.{index}"
        return self._names.setdefault(id(parameter), default)

    # -- its state ---------------------------------------------------------------------------------------------------

    def state_of(self, optimizer: torch.optim.Optimizer) -> dict[str, Component]:
        """Return what a resume must have brought back, as one optimizer is about to update."""
        place = self._places.setdefault(self.add_optimizer(optimizer), len(self._places))
        for root, label in zip(self.roots, self._labels, strict=True):
            self._name_parameters(root, label)
        return {
            "weights": dict(self._weights(optimizer)),
            "optimizer": _labelled(place, readings.optimizer_state(optimizer, self._names)),
            "param_groups": _labelled(place, readings.hyperparameters(optimizer)),
            "lr": _labelled(place, readings.learning_rates(optimizer)),
            "scheduler": dict(self._schedulers()),
            "scaler": dict(self._scalers()),
            "ema": dict(self.averages()),
        }

    def update_of(self, optimizer: torch.optim.Optimizer) -> dict[str, Component]:
        """Return gradients and weights after an update."""
        parameters = dict(self._parameters(optimizer))
        gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
        return {
            "gradients": readings.read_tensors(gradients),
            "update": readings.read_tensors(parameters, casts=True),
        }

    def saveable(self) -> Iterator[tuple[str, Reading]]:
        """Yield what a save may write, by `component/key`."""
        for number, optimizer in enumerate(self._optimizers):
            weights = readings.read_tensors(dict(self._parameters(optimizer)), casts=True)
            yield from ((f"weights/{name}", reading) for name, reading in weights.items())
            place = self._places.get(number, number)
            for key, reading in _labelled(place, readings.optimizer_state(optimizer, self._names)).items():
                yield f"optimizer/{key}", reading
        for key, reading in self.averages():
            yield f"ema/{key}", reading

    def fingerprint(self) -> tuple[object, ...]:
        """Return a value that changes when the weights do, without reading them."""
        return readings.fingerprint(self._trained())

    def _parameters(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.Tensor]]:
        for group, settings in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(settings["params"]):
                yield self._name(optimizer, group, index, parameter), parameter

    def _weights(self, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Reading]]:
        yield from readings.read_tensors(dict(self._parameters(optimizer))).items()
        for root in self.roots:
            for parameter in root.parameters():
                if not parameter.requires_grad:
                    yield self._names[id(parameter)], self._read_frozen(parameter)

    def _read_frozen(self, parameter: torch.Tensor) -> Reading:
        """Read a parameter that is not trained only when it may have changed."""
        stamp = (parameter.data_ptr(), parameter._version)  # noqa: SLF001 - the documented counter has no other name
        known = self._frozen.get(id(parameter))
        if known is None or known[0] != stamp:
            known = self._frozen[id(parameter)] = (stamp, readings.read_tensor(parameter))
        return known[1]

    def _schedulers(self) -> Iterator[tuple[str, Reading]]:
        counts: Counter[str] = Counter()
        for scheduler in self._found.schedulers:
            place = self._place_of(getattr(scheduler, "optimizer", None))
            if place is not None:
                label = f"{type(scheduler).__name__}[{place}]"
                counts[label] += 1
                for name, value in vars(scheduler).items():
                    if not name.startswith("_") and isinstance(value, (int, float)):
                        yield f"{label}#{counts[label]}/{name}", readings.read_scalar(value)

    def _place_of(self, optimizer: object) -> int | None:
        """Return the place of an optimizer in this step; None if it has not ticked in it."""
        inner = getattr(optimizer, "optimizer", optimizer)
        return next((self._places.get(number) for number, known in enumerate(self._optimizers) if known is inner), None)

    def _scalers(self) -> Iterator[tuple[str, Reading]]:
        for number, scaler in enumerate(self._found.scalers):
            for name, reading in readings.read_tree(scaler.state_dict()).items():
                yield f"{number}/{name}", reading

    def averages(self) -> Iterator[tuple[str, Reading]]:
        """Yield the averages of the weights, as far as they have been found, by `average/parameter`."""
        for number, average in enumerate(self._found.averages):
            for name, reading in readings.read_tensors(dict(average.tensors()), casts=True).items():
                yield f"{average.label}#{number}/{name}", reading


def buffers_of(module: torch.nn.Module) -> dict[str, Reading]:
    """Return the buffers that a module's state dict holds, by name; the others are caches."""
    found: dict[str, torch.Tensor] = {}
    for prefix, part in module.named_modules():
        for name, buffer in part.named_buffers(recurse=False):
            if name not in part._non_persistent_buffers_set:  # noqa: SLF001 - no public way to ask
                found[discover.plain_name(f"{prefix}.{name}" if prefix else name)] = buffer
    return readings.read_tensors(found)


def _labelled(place: int, component: Mapping[str, Reading]) -> dict[str, Reading]:
    """Return the keys with the optimizer's place, where it is not the first."""
    return {f"optimizer{place}:{key}" if place else key: value for key, value in component.items()}
