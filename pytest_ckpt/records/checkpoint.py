"""Checkpoints as they were found on disk and what their content says about the step they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pytest_ckpt.records.codec import Record

#: Names under which wrappers keep the model that they wrap; they get into the keys of its state dict.
WRAPPERS: Final = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped(Record):
    """Trained parameters that are stored only under keys with the name that a wrapper gives to the model in it.

    Attributes:
        wrapper: the name, one of `WRAPPERS`.
        count: how many parameters there are.
        key: of the first, as it is stored.
        path: of its file, relative to the job's directory.
    """

    wrapper: str
    count: int
    key: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content(Record):
    """What the tensors of a checkpoint match among the states that the probe saw.

    Attributes:
        expected: how many tensors of optimised parameters a whole checkpoint holds.
        matched: how many of them were found, by value, whatever their names in the file.
        steps: the steps whose state all matched tensors agree on; empty if none does or nothing matched.
        groups: matched tensors of a mixture, by what they are: `weights`, `optimizer` to the steps they fit.
        missing: parameters of which no value of any step was found.
        rearranged: parameters that are there in parts or transposed, as far as the number of elements tells.
        transform: the named change under which the weights matched, such as `cast to bfloat16` or `EMA`.
    """

    expected: int = 0
    matched: int = 0
    steps: tuple[int, ...] = ()
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    rearranged: tuple[str, ...] = ()
    transform: str = ""

    @property
    def is_mixture(self) -> bool:
        """Whether tensors of different steps lie in one checkpoint."""
        return self.matched > 0 and not self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess(Record):
    """Bytes of a file that no tensor needs.

    Attributes:
        key: of the largest tensor concerned; empty for what is no tensor.
        stored: bytes in the file.
        needed: bytes that the elements of the tensors take.
        why: `view` of a larger tensor, `copy` of one that is stored already, `base` weights beside an adapter, or `rest`,
            which is no tensor.
        other: where the same tensor is stored, for a copy.
    """

    key: str
    stored: int
    needed: int
    why: Literal["view", "copy", "base", "rest"]
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSize(Record):
    """How many bytes a file of tensors has, and how many it needs.

    Attributes:
        path: relative to the job's directory.
        stored: all its bytes.
        needed: bytes of the distinct elements of its tensors.
        tensors: how many of them are stored.
        unread: how many more tensors could not be read.
        excess: the largest reasons for the difference.
    """

    path: str
    stored: int
    needed: int
    tensors: int = 0
    unread: int = 0
    excess: tuple[Excess, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Record):
    """One thing on disk that a resume can name.

    Attributes:
        path: relative to the job's directory, with forward slashes.
        version: 1 for the first content seen under this path, 2 after it was overwritten, and so on.
        claimed: the job's own number of the step, taken from the name where the framework's layout defines it.
        saved_after: how many steps this process had done when the content appeared.
        begun_after: how many steps this process had done when the save was seen to begin; None if it was not seen.
        look: index of the look at which it was first seen.
        settled: index of the look whose copy is complete; None if it never came to rest.
        kind: `full` can continue training, `weights` holds the model only, `unknown` could not be read.
        kept: whether this content is still there when the job has ended.
        gone_after: how many steps were done when it was seen to be gone.
        foreign: whether it was there before the job started.
        claim_is_step: whether `claimed` counts optimizer steps; otherwise it is only a number in a name.
        in_main_thread: whether it was written by the thread that trains.
        content: which step's state it holds; None if nothing in it could be read.
        problem: why a file in it could not be read.
        size: bytes of all its files.
        files: paths of all its files, relative to the job's directory.
        others: paths that belong to it beside the one it is named by.
        sizes: of its files of tensors.
        tensors: the digest of each tensor in its files, by `file:key`.
        wrapped: parameters whose keys only a wrapped model has a place for.
        refused: classes and functions that `torch.load(weights_only=True)` refuses to use, by the file that names them.
    """

    path: str
    version: int = 1
    claimed: int | None = None
    saved_after: int = 0
    begun_after: int | None = None
    look: int = 0
    settled: int | None = None
    kind: Literal["full", "weights", "unknown"] = "unknown"
    kept: bool = True
    gone_after: int | None = None
    foreign: bool = False
    claim_is_step: bool = False
    in_main_thread: bool = True
    content: Content | None = None
    problem: str = ""
    size: int = 0
    files: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    sizes: tuple[FileSize, ...] = ()
    tensors: Mapping[str, str] = field(default_factory=dict)
    wrapped: tuple[Wrapped, ...] = ()
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The path, with the version where it is not the first."""
        return self.path if self.version == 1 else f"{self.path}@{self.version}"

    @property
    def held_step(self) -> int | None:
        """The step whose state it holds, where the content says so unmistakably."""
        if self.content is None or len(self.content.steps) != 1:
            return None
        return self.content.steps[0]
