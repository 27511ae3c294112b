"""Which step is in this file? Answered by comparing its tensors with the states that were seen, never by its name."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_ckpt.checkpoints.state_table import plain_key, plain_name
from pytest_ckpt.records.checkpoint import Content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.checkpoints.file_content import FileContent, TensorEntry
    from pytest_ckpt.checkpoints.state_table import StateTable

#: What follows the name of a layer in those of its adapter's weights.
_ADAPTER: Final = ".lora_"
#: The groups of averages and of optimizers' state, beside those of the models.
_AVERAGES: Final = "average"
_OPTIMIZER: Final = "optimizer"


def identify(files: Mapping[str, FileContent], table: StateTable, after: int) -> Content:
    """Return which step's state the files of one checkpoint hold, which was saved after so many steps."""
    wanted = _wanted(files, table, after)
    models: dict[str, dict[str, _Group]] = defaultdict(lambda: defaultdict(_Group))
    for name, content in files.items():
        for entry in content.tensors:
            if table.knows(entry):
                _sort_in(entry, name, table, wanted, models)
    averages, optimizer = models.pop(_AVERAGES, {}), _best(models.pop(_OPTIMIZER, {}))
    _leave_to(averages, models)
    weights = _Group.joined(_best(groups) for groups in models.values()) if models else _best(averages)
    _add_renamed(weights, (group for groups in models.values() for group in groups.values()), wanted)
    absent = _absent(files, table, weights, wanted)
    rearranged = _is_rearranged(files, table, absent)
    return Content(
        expected=len(wanted),
        matched=len(wanted & weights.steps.keys()) or len(weights.steps),
        steps=tuple(sorted(_of_stage(_agree(weights, optimizer), table, after))),
        groups=_groups(weights, optimizer),
        missing=() if rearranged else absent,
        rearranged=absent if rearranged else (),
        transform=weights.transform,
    )


def _wanted(files: Mapping[str, FileContent], table: StateTable, after: int) -> set[str]:
    """Return the trained parameters that a checkpoint is to hold, of those whose value was read: all of one stage.

    That is the stage in which it was saved, if a tensor in it fits no other; else the one that most of its tensors fit.
    """
    now = table.stage_at(after)
    if now is None:
        return set()
    fits = [table.stages_of(entry) for content in files.values() for entry in content.tensors if table.knows(entry)]
    stage = now if {now} in fits else max(table.stages, key=lambda one: (sum(one in fit for fit in fits), one is now))
    return {key for key in stage.trained if f"weights/{key}" in table.shapes}


def _leave_to(averages: Mapping[str, _Group], models: dict[str, dict[str, _Group]]) -> None:
    """Leave out weights that lie among more averages: these did not move, and are their own average."""
    for place, average in averages.items():
        here = [groups for groups in models.values() if place in groups]
        if average.width > sum(groups[place].width for groups in here):
            for groups in here:
                del groups[place]
    for model in [model for model, groups in models.items() if not groups]:
        del models[model]


def _best(groups: Mapping[str, _Group]) -> _Group:
    """Return the group that is most of a model: a file may also hold copies of it of other steps, such as the best so far."""
    return max(groups.values(), key=lambda group: group.rank, default=_Group())


@dataclass(slots=True)
class _Group:
    """Tensors that lie together in a file: the steps that each parameter fits."""

    steps: dict[str, set[int]] = field(default_factory=dict)
    transform: str = ""

    @property
    def common(self) -> set[int]:
        return set.intersection(*self.steps.values()) if self.steps else set()

    @property
    def width(self) -> int:
        """How many parameters there are, whichever averages they are of."""
        return len({plain_name(key).split("/", 1)[-1] for key in self.steps})

    @property
    def rank(self) -> tuple[int, int, int]:
        """The most parameters first, then one that agrees on a step, then the latest."""
        return len(self.steps), bool(self.common), max(self.common, default=-1)

    def add(self, key: str, steps: set[int]) -> None:
        self.steps[key] = self.steps[key] | steps if key in self.steps else set(steps)

    @classmethod
    def joined(cls, groups: Iterable[_Group]) -> _Group:
        """Return the models of one checkpoint as one."""
        groups = list(groups)
        steps = {key: steps for group in groups for key, steps in group.steps.items()}
        return cls(steps, ", ".join(sorted({group.transform for group in groups if group.transform})))


def _sort_in(
    entry: TensorEntry, file: str, table: StateTable, wanted: set[str], models: dict[str, dict[str, _Group]]
) -> None:
    """Put one tensor into the group of its neighbours, by the model that it belongs to: one that is wanted if it can."""
    hits = table.hits[entry.digest]
    weights = [hit for hit in hits if hit.kind == "weights"]
    trained = [hit for hit in weights if hit.key in wanted]
    if not {_model(hit.key) for hit in weights} & {_model(key) for key in wanted}:  # nor is it frozen in a wanted one
        trained = [hit for hit in weights if hit.key in table.trained]
    for hit in hits:
        if hit.kind == "optimizer":
            models[_OPTIMIZER][""].add(hit.key, hits[hit])
        elif hit in trained or (hit.kind == "ema" and (trained or not weights)):
            model = _AVERAGES if hit.kind == "ema" else _model(hit.key)
            group = models[model][f"{file}:{_prefix(entry.key, hit.key)}"]
            group.add(hit.key, hits[hit])
            group.transform = "EMA" if hit.kind == "ema" else hit.transform


def _model(key: str) -> str:
    """Return the label of the model that owns a parameter."""
    return key.split(":", 1)[0]


def _prefix(key: str, parameter: str) -> str:
    """Return what stands before the parameter's name in a file, so that a model and its best copy are told apart."""
    plain, name = plain_key(key), plain_name(parameter).split("/", 1)[-1]
    return plain[: -len(name)] if plain.endswith(name) else key.split(".", 1)[0] if "." in key else ""


def _agree(weights: _Group, optimizer: _Group) -> set[int]:
    """Return the steps on which weights and optimizer state agree."""
    if weights.steps and optimizer.steps:
        return weights.common & optimizer.common
    return weights.common


def _of_stage(steps: set[int], table: StateTable, after: int) -> set[int]:
    """Leave out steps of a stage after the one in which it was saved: its model rests then, and another one is trained."""
    now = table.stage_at(after)
    return {step for step in steps if step <= after or table.stage_at(step) is now} or steps


def _groups(weights: _Group, optimizer: _Group) -> dict[str, tuple[int, ...]]:
    """Return which steps the parts fit where they do not agree on one."""
    if _agree(weights, optimizer) or not weights.steps:
        return {}
    several = len({_model(key) for key in (*weights.steps, *optimizer.steps)}) > 1
    parts: dict[str, set[int]] = {}
    for name, group in (("weights", weights), ("optimizer", optimizer)):
        if group.common:
            parts[name] = group.common
        else:
            for key, steps in group.steps.items():
                parts[f"{name} {key if several else plain_name(key)}"] = steps
    return {name: tuple(sorted(steps)) for name, steps in parts.items()}


def _add_renamed(best: _Group, groups: Iterable[_Group], wanted: set[str]) -> None:
    """Add parameters of the same step that lie under a name of their own, beside the others."""
    common = best.common
    for group in groups:
        for key, steps in group.steps.items():
            if key in wanted and key not in best.steps and common & steps:
                best.add(key, steps)


def _absent(files: Mapping[str, FileContent], table: StateTable, best: _Group, wanted: set[str]) -> tuple[str, ...]:
    """Return the trained parameters that the files do not even name, if they hold others of the model."""
    if not best.steps or best.transform == "EMA":
        return ()
    absent = wanted - set(best.steps)
    entries = _unknown(files, table)
    merged = {plain_key(entry.key).removesuffix(".weight") for entry in entries}
    return tuple(sorted(key for key in absent if not (_is_named(key, entries, table) or _is_merged(key, merged))))


def _unknown(files: Mapping[str, FileContent], table: StateTable) -> list[TensorEntry]:
    return [entry for content in files.values() for entry in content.tensors if not table.knows(entry)]


def _is_rearranged(files: Mapping[str, FileContent], table: StateTable, absent: Sequence[str]) -> bool:
    """Say whether the files hold as many elements in matrices that no state has as the absent parameters have.

    That is so where they are saved in parts or transposed, as the experts of a mixture that transformers stacks in memory.
    """
    shapes = [table.shapes[f"weights/{key}"] for key in absent]
    wanted = sum(math.prod(shape) for shape in shapes if len(shape) > 1)
    found = sum(entry.numel for entry in _unknown(files, table) if len(entry.shape) > 1)
    return wanted > 0 and wanted == found


def _is_named(key: str, entries: Iterable[TensorEntry], table: StateTable) -> bool:
    """Say whether a tensor of the parameter's shape could be it: its value may have been changed by the save."""
    shape = table.shapes.get(f"weights/{key}")
    return any(entry.shape == shape for entry in entries)


def _is_merged(key: str, layers: Iterable[str]) -> bool:
    """Say whether the parameter is of an adapter whose layer has a value that was never seen: the adapter is in it."""
    layer, adapter, _ = plain_name(key).partition(_ADAPTER)
    return bool(adapter) and any(f".{layer}".endswith(f".{name}") for name in layers)
