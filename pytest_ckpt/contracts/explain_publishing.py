"""Saying how checkpoints get their names, and what a crash may find meanwhile; operations are counted as reports count them."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

from pytest_ckpt.contracts.explain_saving import some_of
from pytest_ckpt.contracts.publishing import of_one_save, pointings, publications
from pytest_ckpt.contracts.syncing import syncings, unsynced_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_ckpt.contracts.base import Advisor
    from pytest_ckpt.contracts.publishing import Pointing, Publication
    from pytest_ckpt.records.run import RunRecord

#: Checkpoints of one save, and pointers, that are told of.
_MOST: Final = 3


def without_restart(run: RunRecord, advisor: Advisor, *, by_power: bool) -> Iterator[tuple[str, str]]:
    """Yield rows on what the operations of one save tell, though nothing was tried."""
    if run.trace is None:
        return
    found = publications(run, advisor)
    shown = of_one_save(found)
    yield from (("published", _published(one)) for one in shown[:_MOST])
    named = [pointing for pointing in pointings(run, found) if pointing.to in shown]
    yield from (("pointer", _pointed(pointing)) for pointing in named[:_MOST])
    if by_power:
        yield from (("synced", text) for one in shown[:_MOST] for text in _synced(one, run))


def arrivals(run: RunRecord, advisor: Advisor) -> tuple[str, ...]:
    """Return a note on checkpoints that are moved in from outside of the job's directory, if there are any."""
    found = [one for one in publications(run, advisor) if one.way == "arrived"]
    if not found:
        return ()
    first, others = found[0], len({one.path for one in found}) - 1
    more = f", as {others} more {'is' if others == 1 else 'are'}" if others else ""
    outside = f"{posixpath.dirname(first.source)}, outside of the job's directory (operation {first.last + 1}){more}"
    here = "here both are on one file system, so it is there at once"
    elsewhere = "between two, as with a TMPDIR of its own, a move is a copy, and a kill leaves a part of the file"
    return (f"{first.path} is moved in from {outside}; {here}; {elsewhere}",)


def _published(one: Publication) -> str:
    match one.way:
        case "renamed":
            before = f", from {one.source}" if one.source else ""
            return f"{one.path} gets its name at once{before} (operation {one.last + 1})"
        case "arrived":
            return (
                f"{one.path} is moved in from {posixpath.dirname(one.source)} (operation {one.last + 1}): at once on one file "
                "system, byte by byte between two"
            )
        case _ if one.tail:
            tail = one.tail.removeprefix(f"{one.path}/")
            return f"{one.path} is filled in place, by {_operations(one.first, one.last)}; {tail} comes last"
    how = "copied to its name" if one.way == "copied" else "written in place"
    return f"{one.path} is {how}, by {_operations(one.first, one.last)}: a reader may see any part of it"


def _pointed(one: Pointing) -> str:
    """Say when a pointer names a checkpoint, and how."""
    when = f"{one.path} names {one.to.path} (operation {one.number + 1})"
    order = f"before that is whole (operation {one.to.last + 1})" if one.is_early else "after that is whole"
    if one.begun is None:
        return f"{when} {order}"
    return f"{when} {order}; it is not replaced at once: a reader may find it empty, or gone, from operation {one.begun + 1} on"


def _synced(one: Publication, run: RunRecord) -> Iterator[str]:
    """Yield what of a checkpoint is not durable when it has its name, or that all is."""
    files = syncings(one, run)
    early = next((file for file in files if file.is_early), None)
    late = next((file for file in files if file.is_late), None)
    missing = [file.path for file in files if file.synced is None]
    folder = unsynced_folder(one, run)
    if missing:
        which = (
            f"{len(missing)} of {len(files)} files of {one.path}, {some_of(missing)}," if len(files) > 1 else missing[0]
        )
        yield f"{which} never"
    if early is not None:
        both = f"operations {(early.synced or 0) + 1} and {early.written + 1}"
        yield f"{early.path} before all its bytes are written ({both}): they are in a buffer of the program"
    if late is not None:
        both = f"operations {(late.synced or 0) + 1} and {(late.named or 0) + 1}"
        yield f"{late.path} only after it has its name ({both})"
    if folder is not None:
        yield f"{folder or 'the directory'} not after operation {one.first + 1}, which changes the names in it"
    if not missing and early is None and late is None and folder is None:
        yield f"{one.path} before it gets its name, and the directory after"


def _operations(first: int, last: int) -> str:
    return f"operation {first + 1}" if first == last else f"operations {first + 1} to {last + 1}"
