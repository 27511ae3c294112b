"""What the official loader of a framework made of a checkpoint, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_ckpt.records.codec import Record
from pytest_ckpt.records.state import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading(Record):
    """One call of a loader.

    Attributes:
        loader: what was called, such as `LlamaForCausalLM.from_pretrained`.
        error: the kind and the text of what it raised; empty if it returned a model.
        missing: tensors of the model that the files lack, by name.
        unexpected: keys of the files that the model has no place for.
        mismatched: tensors whose shapes differ, each with both shapes.
        drawn: tensors that had other values when it was called again with another seed, so that they were not read.
        tensors: the parameters and the persistent buffers of the model that it returned, by name.
        unfit: why this loader need not be the way to load what this job saves; empty where it is. Where nothing else is set, it
            was not called.
    """

    loader: str
    error: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    tensors: Mapping[str, Reading] = field(default_factory=dict)
    unfit: str = ""
