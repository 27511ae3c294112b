"""The contract on how large a checkpoint is: not much larger than the tensors in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from pytest_ckpt.contracts.base import OfBaseline, OnRequest
from pytest_ckpt.contracts.contents import nothing_saved
from pytest_ckpt.contracts.explain_saving import checkpoints_text, no_steps
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.verdict import Finding, Verdict, held, inconclusive, violated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_ckpt.contracts.base import Evidence
    from pytest_ckpt.records.checkpoint import Checkpoint, Excess, FileSize
    from pytest_ckpt.records.run import RunRecord

#: Headers, pickles, schedules and random states.
_PER_FILE: Final = 16 * 1024
#: Names, a record's header and the gap before it.
_PER_TENSOR: Final = 512
_CAUSES: Final[Mapping[str, tuple[str, str]]] = {
    "view": (
        "the tensor is a view of a larger one, and torch.save writes all the memory that a tensor is a part of.",
        "save a copy of the part: tensor.clone().",
    ),
    "copy": (
        "the same values are stored a second time, as two tensors that share no memory.",
        "save the tensor once; let tied weights share their memory.",
    ),
    "base": (
        "weights of the base model are stored beside the adapter, though they are not trained.",
        "save the adapter only, as peft's save_pretrained does.",
    ),
    "rest": (
        "the file holds something large that is no tensor: a list of numbers, a data set, a pickled object.",
        "save what training needs to go on, and write logs and data elsewhere.",
    ),
}


@dataclass(frozen=True)
class Compact(OnRequest, OfBaseline):
    """The files of each checkpoint have at most `slack` times the bytes of the distinct tensor elements in them."""

    name: ClassVar[str] = "compact"
    slack: float = 1.1

    def __post_init__(self) -> None:
        given: object = self.slack
        if not isinstance(given, (int, float)) or isinstance(given, bool) or not given >= 1:
            message = f"slack must be how many times the needed bytes are allowed, 1 or more; got {given!r}"
            raise InvalidArgument(message)

    def judge(self, evidence: Evidence) -> Verdict:
        """Compare the size of each checkpoint of this run with that of the tensors in it."""
        run = evidence.baseline
        if run.last_step == 0:
            return inconclusive(self.name, no_steps())
        measured = [checkpoint for checkpoint in run.written if checkpoint.sizes]
        if not measured:
            return inconclusive(self.name, _unreadable(run) if run.written else nothing_saved(run))
        large = [checkpoint for checkpoint in measured if _stored(checkpoint) > self._allowed(checkpoint)]
        sure = [checkpoint for checkpoint in large if not any(size.unread for size in checkpoint.sizes)]
        if sure:
            return violated(self.name, *(self._finding(checkpoint, run) for checkpoint in sure))
        if large:
            return inconclusive(self.name, *(_unsure(checkpoint, run) for checkpoint in large))
        largest = max(measured, key=_stored)
        return held(
            self.name,
            f"{checkpoints_text(len(measured))}, the largest of {_bytes(_stored(largest))} for "
            f"{_bytes(_needed(largest))} of tensors",
        )

    def _allowed(self, checkpoint: Checkpoint) -> float:
        overhead = sum(_PER_FILE + _PER_TENSOR * size.tensors for size in checkpoint.sizes)
        return self.slack * _needed(checkpoint) + overhead

    def _finding(self, checkpoint: Checkpoint, run: RunRecord) -> Finding:
        found = [(size, excess) for size in checkpoint.sizes for excess in size.excess]
        found.sort(key=lambda pair: pair[1].needed - pair[1].stored)
        cause, fix = _CAUSES[found[0][1].why]
        stored, needed = _stored(checkpoint), _needed(checkpoint)
        return Finding(
            title=f"{checkpoint.path} has {_bytes(stored)} for {_bytes(needed)} of tensors, more than {self.slack:g} times; "
            f"most of it is {_name(*found[0])}",
            rows=tuple(_row(*pair) for pair in found[:3] if pair[1].stored - pair[1].needed > _PER_FILE),
            cause=cause,
            fix=fix,
            step=run.step_of(checkpoint),
            component="size",
            checkpoint=checkpoint.identity,
        )


def _stored(checkpoint: Checkpoint) -> int:
    return sum(size.stored for size in checkpoint.sizes)


def _needed(checkpoint: Checkpoint) -> int:
    return sum(size.needed for size in checkpoint.sizes)


def _name(size: FileSize, excess: Excess) -> str:
    return f"{excess.key} in {size.path}" if excess.key else f"no tensor, in {size.path}"


def _row(size: FileSize, excess: Excess) -> tuple[str, ...]:
    copy = f", as {excess.other}" if excess.other else ""
    return excess.why, f"{_name(size, excess)}: {excess.stored} bytes stored, {excess.needed} needed{copy}"


def _bytes(count: float) -> str:
    """Return a number of bytes as text, in the unit in which it is easily read."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - of the decimal units
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _unreadable(run: RunRecord) -> Finding:
    return Finding(
        title=f"no tensor could be read in the {checkpoints_text(len(run.written))} of this run",
        cause="the format of their files is unknown, or they are damaged.",
        fix="measure them in a test of your own with ckpt_run.",
    )


def _unsure(checkpoint: Checkpoint, run: RunRecord) -> Finding:
    unread = sum(size.unread for size in checkpoint.sizes)
    return Finding(
        title=f"{checkpoint.path} has {_bytes(_stored(checkpoint))}, and {unread} of its tensors could not be measured",
        cause="tensors of some types, such as quantised ones, do not lie plainly in a file.",
        fix="measure it in a test of your own with ckpt_run.",
        step=run.step_of(checkpoint),
        checkpoint=checkpoint.identity,
    )
