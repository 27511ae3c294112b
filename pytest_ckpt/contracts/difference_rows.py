"""The rows of a difference between a resumed and an uninterrupted run: what agrees, what does not, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.trajectory import StepDifference, batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.state import Reading

#: Rows of the table of a difference: component, its title, what it says if it agrees.
_ROWS: Final = (
    ("data", "data", "same batches"),
    ("weights", "weights", "same"),
    ("buffers", "buffers", "same"),
    ("optimizer", "optimizer", "same state"),
    ("param_groups", "settings", "same"),
    ("lr", "lr", "same"),
    ("scheduler", "scheduler", "same"),
    ("scaler", "scaler", "same"),
    ("ema", "average", "same"),
    ("counter", "counter", "same"),
    ("rng", "rng", "same"),
    ("gradients", "gradients", "same"),
    ("update", "update", "same"),
)
_ALWAYS: Final = frozenset({"data", "weights", "optimizer", "lr"})
_GENERATORS: Final = {"torch": "torch", "cuda": "CUDA", "numpy": "numpy", "python": "Python"}


def components_text(found: StepDifference) -> str:
    """Return the titles of the components that differ, those left out which only follow from others."""
    roots = [name for name in found.keys if name not in {"gradients", "update"}] or [found.component]
    titles = {name: title for name, title, _ in _ROWS}
    return ", ".join(titles.get(name, name) for name in roots)


def rows(found: StepDifference, evidence: Evidence | None) -> Iterable[tuple[str, str]]:
    """Yield a row for each component that differs or that every reader asks for."""
    first = found.component
    for name, title, same in _ROWS:
        if name == "rng":
            differing = found.rng_differs if first == "rng" or "data" in found.keys else ()
        else:
            differing = found.keys.get(name, ())
        if differing:
            mark = "   <- first difference" if name == first else ""
            yield title, _describe(name, differing, found, evidence) + mark
        elif name in _ALWAYS and (found.expected.state.get(name) or found.found.state.get(name)):
            yield title, same


def _describe(name: str, keys: Sequence[str], found: StepDifference, evidence: Evidence | None) -> str:
    expected, actual = found.expected.state.get(name, {}), found.found.state.get(name, {})
    match name:
        case "data":
            return _describe_data(found, evidence)
        case "counter":
            return f"step {found.found.claimed}, uninterrupted {found.expected.claimed}"
        case "rng":
            names = sorted({_GENERATORS[key.split(":", 1)[0]] for key in keys})
            return f"state of {' and '.join(names)} differs"
        case "optimizer":
            return _describe_optimizer(keys, expected, actual)
        case "lr" | "param_groups" | "scheduler" | "scaler":
            return _describe_scalars(keys, expected, actual)
        case _:
            return _describe_tensors(keys, expected, actual)


def step_of_batches(found: StepDifference, evidence: Evidence | None) -> int | None:
    """Return the step of the uninterrupted run that had the batches which the resumed run has now."""
    mine = batches(found.found.state.get("data", {}))
    steps = evidence.baseline.steps if evidence is not None and mine else ()
    return next((step.index for step in steps if batches(step.state.get("data", {})) == mine), None)


def _describe_data(found: StepDifference, evidence: Evidence | None) -> str:
    mine, theirs = (batches(step.state.get("data", {})) for step in (found.found, found.expected))
    if not mine:
        return "no batch was seen"
    step = step_of_batches(found, evidence)
    if step is not None:
        return f"other batches: those of step {step} of the uninterrupted run"
    if len(mine) != len(theirs):
        return f"{len(mine)} batches, uninterrupted {len(theirs)}"
    expected, actual = found.expected.batch_shapes, found.found.batch_shapes
    return (
        f"other batches: shapes {actual[:1]}, uninterrupted {expected[:1]}" if expected != actual else "other batches"
    )


def _describe_optimizer(keys: Sequence[str], expected: Mapping[str, Reading], actual: Mapping[str, Reading]) -> str:
    """Say which entries of how many parameters differ, and whether they are gone, zero or other."""
    entries = sorted({key.rpartition("/")[2] for key in keys if (expected.get(key) or actual[key]).shape is not None})
    entries = entries or sorted({key.rpartition("/")[2] for key in keys})
    parameters = {key.rpartition("/")[0] for key in keys}
    everything = {key.rpartition("/")[0] for key in (*expected, *actual)}
    norm = _total([expected[key] for key in keys if key in expected])
    found = [actual[key] for key in keys if key in actual]
    how = "are absent" if not found else "are zero" if _total(found) == 0 else f"differ (norm {_total(found):.1e}"
    close = f", saved norm {norm:.1e})" if how.startswith("differ") else f" (saved norm {norm:.1e})"
    return f"{', '.join(entries[:4])} of {len(parameters)} of {len(everything)} parameters {how}{close}"


def _describe_scalars(keys: Sequence[str], expected: Mapping[str, Reading], actual: Mapping[str, Reading]) -> str:
    texts = []
    for key in keys[:2]:
        label = "" if key in {"group0", "0/scale"} else f"{key.split(':', 1)[-1]} "
        texts.append(f"{label}{_value(actual.get(key))}, uninterrupted {_value(expected.get(key))}")
    more = f" (and {len(keys) - 2} more)" if len(keys) > 2 else ""  # noqa: PLR2004
    return "; ".join(texts) + more


def _describe_tensors(keys: Sequence[str], expected: Mapping[str, Reading], actual: Mapping[str, Reading]) -> str:
    total = len({*expected, *actual})
    key = max(keys, key=lambda key: abs(_norm(expected.get(key)) - _norm(actual.get(key))))
    name = key.split(":", 1)[-1]
    return (
        f"{len(keys)} of {total} differ, most in norm {name}: {_value(actual.get(key))}, "
        f"uninterrupted {_value(expected.get(key))}"
    )


def _value(reading: Reading | None) -> str:
    if reading is None:
        return "absent"
    if reading.norm is not None:
        return f"{reading.norm:.4g}"
    try:
        return f"{float(reading.digest):.4g}"
    except ValueError:
        return reading.digest[:8] or "unreadable"


def _norm(reading: Reading | None) -> float:
    return 0.0 if reading is None or reading.norm is None else reading.norm


def _total(readings: Iterable[Reading]) -> float:
    return float(sum(_norm(reading) ** 2 for reading in readings) ** 0.5)
