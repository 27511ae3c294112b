"""Numbers in the names of checkpoints: whether they count, and how to give a checkpoint another one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.completeness import family
from pytest_ckpt.records.experiment import Damage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.records.checkpoint import Checkpoint
    from pytest_ckpt.records.run import RunRecord

_NUMBER: Final = re.compile(r"[0-9]+")
#: By how much a count that begins with 1, or with 0, is ahead.
_BEGINNINGS: Final = ({0}, {-1})


def counts(newest: Checkpoint, own: Sequence[Checkpoint], run: RunRecord) -> bool:
    """Say whether the numbers in the names count steps or saves; others, such as the time of the save, are no count."""
    if newest.claimed is None or newest.claim_is_step:
        return newest.claimed is not None
    claims = [(one.claimed or 0, run.step_of(one)) for one in own if family(one) == family(newest)]
    saves = sorted({step for _, step in claims})
    by_step = {number - step for number, step in claims}
    by_save = {number - saves.index(step) - 1 for number, step in claims}
    return by_step in _BEGINNINGS or by_save in _BEGINNINGS


def stale(newest: Checkpoint, older: Sequence[Checkpoint]) -> Damage | None:
    """Return the first of the older checkpoints that has a number, under one above the newest's."""
    above = (newest.claimed or 0) + 9000
    targets = ((checkpoint.path, _with_number(checkpoint, above)) for checkpoint in older)
    return next((Damage(kind="stale", path=path, target=target) for path, target in targets if target), None)


def renamed(newest: Checkpoint) -> Damage | None:
    """Return the newest under the next number that has one more digit: by the letters of its name it is not the last then."""
    return _moved(newest, 10 ** len(str(newest.claimed)))


def control(newest: Checkpoint) -> Damage | None:
    """Return the newest under the highest number that is as long as in `renamed`: it is the last by its letters as well."""
    return _moved(newest, 10 ** (len(str(newest.claimed)) + 1) - 1)


def _moved(newest: Checkpoint, number: int) -> Damage | None:
    target = _with_number(newest, number)
    return Damage(kind="renamed", path=newest.path, target=target) if target and not newest.others else None


def _with_number(checkpoint: Checkpoint, number: int) -> str:
    """Return a checkpoint's path with another number in its name, padded as it is; empty if its name has none."""
    folder, slash, name = checkpoint.path.rpartition("/")
    own = [match for match in _NUMBER.finditer(name) if int(match[0]) == checkpoint.claimed]
    if not own:
        return ""
    digits = own[-1]
    return f"{folder}{slash}{name[: digits.start()]}{number:0{len(digits[0])}d}{name[digits.end() :]}"
