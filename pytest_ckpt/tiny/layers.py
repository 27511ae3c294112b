"""Which layers of an architecture a tiny model keeps: few, but one of every kind.

Hybrids list a kind for each layer (attention or state space, dense or sparse, local or global). Cutting such a list at
two would leave only the first kind, and a checkpoint bug in the other kinds would go unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MOST_LAYERS: Final = 4
MOST_KINDS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLayers:
    """The layers of the default configuration that the tiny one keeps, in order."""

    total: int
    kept: tuple[int, ...]

    def cut(self, per_layer: Sequence[Any]) -> list[Any]:
        """Return the entries of a list with one entry a layer."""
        return [per_layer[index] for index in self.kept]

    def renumber(self, indices: Sequence[int]) -> list[int]:
        """Return a list of layer numbers in the numbers of the tiny model."""
        return [new for new, old in enumerate(self.kept) if old in indices]


def is_per_layer(value: object, total: int) -> bool:
    """Tell whether `value` is a list with one entry for each of `total` layers."""
    return isinstance(value, list | tuple) and len(value) == total


def is_layer_numbers(name: str, value: object, total: int) -> bool:
    """Tell whether the field `name` lists some of the layers by number."""
    return (
        isinstance(value, list | tuple)
        and any(word in name for word in ("layer", "idx", "indices", "indexes"))
        and len(value) > 0
        and all(type(number) is int and 0 <= number < total for number in value)
        and list(value) == sorted(set(value))
    )


def choose_layers(fields: Mapping[str, object], *, total: int, wanted: int, exact: bool) -> KeptLayers:
    """Choose `wanted` layers, and up to `MOST_LAYERS` where kinds would be missed unless the number must be exact.

    Args:
        fields: the default configuration: its lists with one entry a layer, or of layer numbers, say the kinds.
        total: the number of layers of the default configuration.
        wanted: the number of layers to keep.
        exact: keep this number, whatever kinds are missed.
    """
    if exact and wanted > total:
        return KeptLayers(total=total, kept=tuple(index % total for index in range(wanted)))
    limit = min(wanted if exact else max(wanted, MOST_LAYERS), total)
    kept: list[int] = []
    seen: set[tuple[str, str]] = set()
    for index in range(total):
        kinds = set(_kinds(fields, index, total))
        if not kinds <= seen and len(kept) < limit:
            kept.append(index)
            seen |= kinds
    spare = (index for index in range(total) if index not in kept)
    while len(kept) < min(wanted, total):
        kept.append(next(spare))
    return KeptLayers(total=total, kept=tuple(sorted(kept)))


def _kinds(fields: Mapping[str, object], index: int, total: int) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if is_per_layer(value, total):
            entries = [str(entry) for entry in value]  # type: ignore[attr-defined]
            if len(set(entries)) <= MOST_KINDS:
                yield name, entries[index]
        elif is_layer_numbers(name, value, total):
            yield name, str(index in value)  # type: ignore[operator]
