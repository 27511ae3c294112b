"""What can be known of a file that a training job wrote, and the ways in which reading one fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: What a file was recognised as; "pickle" was written by `pickle.dump`, without `torch.save`.
Format: TypeAlias = Literal["safetensors", "torch-zip", "torch-legacy", "pickle", "numpy"]
#: A plain value between the tensors.
Scalar: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor under one key of a file; a tied tensor has an entry for each of its keys.

    Attributes:
        key: the path inside the file, joined by dots ("optimizer.state.0.exp_avg"); empty if the file is one tensor.
        dtype: torch's name of the element type, such as "bfloat16".
        digest: what `tensor_digest` answers for the tensor once it is loaded.
        norm: Euclidean norm, for messages; None where elements are no plain real or complex numbers.
        constant: whether all elements have the same bits, so that equality with another tensor says little.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    norm: float | None
    numel: int
    constant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory that a file stores once, for one tensor or for several that view it.

    Attributes:
        keys: of the tensors that view it, the largest first.
        stored: how many bytes of it are in the file.
        needed: how many of them belong to an element of one of its tensors.
        digest: of the only tensor; empty where there are several, or where its value is too plain to tell it by.
    """

    keys: tuple[str, ...]
    stored: int
    needed: int
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """Everything that one file holds, as far as it can be read without running what the file asks to run.

    Attributes:
        scalars: plain leaves by key path, such as "scheduler.last_epoch".
        has_optimizer: whether somewhere a mapping has both `state` and `param_groups`.
        unreadable: key path to the reason, for tensors whose elements the file does not state plainly.
        memory: what the tensors are views of.
        globals: classes and functions that are named in it, as `module.name` in Python 3.
        protocol: the highest one of its pickles.
    """

    format: Format
    tensors: tuple[TensorEntry, ...]
    scalars: Mapping[str, Scalar]
    has_optimizer: bool
    unreadable: Mapping[str, str] = field(default_factory=dict)
    memory: tuple[Memory, ...] = ()
    globals: tuple[str, ...] = ()
    protocol: int = 0


class ReadError(Exception):
    """A file could not be read for its tensors."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path: Final = path
        self.problem: Final = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class NotACheckpointFile(ReadError):
    """The file is of no format that holds tensors: text, JSON, an event log, ..."""


class DamagedFile(ReadError):
    """The file is of a known format and breaks its rules: cut short, overwritten in part, never written out.

    Attributes:
        what: the part of the file that is wrong.
        expected: what the format, or another part of the file, requires there.
        found: what is there.
    """

    def __init__(self, path: Path, what: str, expected: str, found: str) -> None:
        super().__init__(path, f"{what}: expected {expected}, found {found}")
        self.args = (path, what, expected, found)
        self.what: Final = what
        self.expected: Final = expected
        self.found: Final = found

    def __str__(self) -> str:
        cause = "The file was cut short or changed after it was written, or its writer did not finish."
        return f"damaged file {self.path}: {self.problem}. {cause}"
