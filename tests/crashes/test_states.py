"""From a log to the states that crashes leave: pure functions, and what they promise of every log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_ckpt.crashes.log import Log
from pytest_ckpt.crashes.states import replayed, states
from pytest_ckpt.records.operation import Operation
from pytest_ckpt.records.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_ckpt.records.crash import CrashState


class Written(Log):
    """A log that keeps its bytes in memory: each write is of its own letter."""

    def data(self, offset: int, size: int) -> bytes:
        """Return bytes of the write that begins there."""
        return bytes([97 + offset % 26]) * size


def log_of(*operations: Operation, done: Sequence[int] | None = None) -> Log:
    """Return a log of operations, each a second after the other, done when the next begins unless said otherwise."""
    at = [Operation(**{**fields(one), "time_ns": 10**9 * (number + 1)}) for number, one in enumerate(operations)]
    known = tuple(range(1, len(at) + 1)) if done is None else tuple(done)
    return Written(operations=tuple(at), done=known, content=None)  # type: ignore[arg-type]


def fields(operation: Operation) -> dict[str, Any]:
    """Return the fields of an operation by their names."""
    return {name: getattr(operation, name) for name in Operation.__dataclass_fields__}


def made(path: str, size: int = 10, data: int = 0) -> tuple[Operation, Operation]:
    """Return what makes a file and writes to it."""
    return Operation(kind="open", path=path), Operation(
        kind="write", path=path, inode=len(path), offset=0, size=size, data=data
    )


def all_states(log: Log, ends: Sequence[int] = ()) -> tuple[list[CrashState], dict[str, bytes]]:
    """Return the states and the contents of all files in them, by their digests."""
    kept: dict[str, bytes] = {}

    def keep(content: bytes) -> str:
        import hashlib

        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        kept[digest] = content
        return digest

    return list(states(log, Tree(), kept.__getitem__, keep, ends)), kept


def held(state: CrashState, contents: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a state with their contents."""
    return {entry.path: contents[entry.content] for entry in state.tree.entries if entry.kind == "file"}


def test_states_are_those_between_the_operations() -> None:
    """Before the first, after each, and each once: what changes nothing makes none."""
    found, contents = all_states(log_of(*made("a"), Operation(kind="sync", path="a", inode=1), *made("a", data=1)))
    assert [{}, {"a": b""}, {"a": b"a" * 10}, {"a": b"b" * 10}] == [
        held(one, contents) for one in found if not one.lost
    ]
    assert [0, 1, 2, 5] == [one.operations for one in found if not one.lost]


def test_a_state_is_known_by_the_operation_that_made_it() -> None:
    """What changes nothing makes it last; where it is there once more, the operation that made it again counts."""
    idle = Operation(kind="sync", path="a", inode=1), Operation(kind="mkdir", path="a")
    lasting, _ = all_states(log_of(*made("a"), *idle))
    assert [(0, 0), (1, 1), (2, 4)] == [(one.entered, one.until) for one in lasting if not one.lost]
    again, _ = all_states(log_of(*made("a"), Operation(kind="unlink", path="a"), Operation(kind="sync_all", path="")))
    assert [(3, 4), (1, 1), (2, 2)] == [(one.entered, one.until) for one in again if not one.lost]


def test_a_long_write_is_cut_between_pages() -> None:
    """One page, half of them, all but the last; a short one arrives as a whole."""
    found, contents = all_states(log_of(*made("a", size=10 * 4096 + 1)))
    assert [4096, 5 * 4096, 10 * 4096] == [len(held(one, contents)["a"]) for one in found if one.cut is not None]


def test_a_large_file_is_not_copied_for_each_of_its_writes() -> None:
    """The first write to it, one in the middle and the last stand for all; the files beside it have all their states."""
    chunk = 1 << 18
    writes = [Operation(kind="write", path="big", inode=3, size=chunk, offset=None, data=one) for one in range(9)]
    found, contents = all_states(log_of(Operation(kind="open", path="big"), *writes, *made("a")))
    sizes = [len(held(one, contents)["big"]) for one in found if "big" in held(one, contents) and not one.lost]
    whole = [size // chunk for size in sizes if size % chunk == 0]
    assert [0, 1, 5, 9, 9, 9] == whole
    assert b"a" * 10 == held([one for one in found if not one.lost][-1], contents)["a"]


def test_an_operation_may_be_late_until_its_thread_is_seen_again() -> None:
    """Another thread's may have been carried out before it."""
    first, second = Operation(kind="mkdir", path="a", thread=1), Operation(kind="mkdir", path="b", thread=2)
    third = Operation(kind="mkdir", path="c", thread=2)
    found, _ = all_states(log_of(first, second, third, done=(2, 2, 3)))
    trees = [tuple(entry.path for entry in one.tree.entries) for one in found]
    assert [(), ("a",), ("a", "b"), ("b",), ("a", "b", "c")] == trees
    assert [(0,)] == [one.undone for one in found if one.undone]


def lost(found: list[CrashState]) -> list[str]:
    """Return what power failures lose."""
    return [one.lost for one in found if one.lost]


def test_bytes_that_are_not_synced_are_lost_though_their_name_is_there() -> None:
    """All, or a half of them; synced ones are not."""
    rename = Operation(kind="rename", path="a.tmp", target="a")
    found, contents = all_states(log_of(*made("a.tmp"), rename))
    assert ["the bytes of a", "half of the bytes of a"] == lost(found)
    assert [{"a": b""}, {"a": b"aaaaa"}] == [held(one, contents) for one in found if "bytes" in one.lost]
    synced, _ = all_states(log_of(*made("a.tmp"), Operation(kind="sync", path="a.tmp", inode=5), rename))
    assert [] == lost(synced)


def test_names_that_are_not_synced_are_as_they_were() -> None:
    """The old file is there under its name again."""
    durable = (Operation(kind="mkdir", path="d"), *made("a"), Operation(kind="sync_all", path=""))
    fresh = (*made("b.tmp", data=1), Operation(kind="sync", path="b.tmp", inode=5), Operation(kind="open", path="d/x"))
    rename = Operation(kind="rename", path="b.tmp", target="a")
    found, contents = all_states(log_of(*durable, *fresh, rename))
    (state,) = [one for one in found if one.lost == "the changed names in its directory"]
    assert {"a": b"a" * 10, "d/x": b""} == held(state, contents)
    synced, _ = all_states(log_of(*durable, *fresh, rename, Operation(kind="sync_all", path="")))
    assert [] == [one for one in synced if one.lost and one.operations == len(durable) + len(fresh) + 2]


def test_what_an_earlier_save_wrote_is_durable() -> None:
    """A save's end makes it so: the kernel has time to write it back."""
    two = (*made("a"), *made("b", data=1))
    risky, _ = all_states(log_of(*two))
    safe, _ = all_states(log_of(*two), ends=[2 * 10**9 + 1])
    assert "the bytes of a" in [one.lost for one in risky if one.operations == len(two)]
    assert [] == [one.lost for one in safe if one.operations == len(two) and one.lost.endswith(" a")]


PATHS = st.sampled_from(["a", "b", "d", "d/a", "d/b"])
OPERATIONS = st.one_of(
    st.builds(Operation, kind=st.just("open"), path=PATHS, empties=st.booleans()),
    st.builds(Operation, kind=st.just("write"), path=PATHS, size=st.integers(1, 9000), data=st.integers(0, 25)),
    st.builds(Operation, kind=st.sampled_from(["mkdir", "unlink", "rmdir", "depart"]), path=PATHS),
    st.builds(Operation, kind=st.sampled_from(["rename", "exchange"]), path=PATHS, target=PATHS),
    st.builds(Operation, kind=st.just("truncate"), path=PATHS, size=st.integers(0, 9000)),
    st.builds(Operation, kind=st.just("sync"), path=PATHS),
)


@given(st.lists(OPERATIONS, max_size=12))
def test_whatever_is_done_every_state_is_a_tree_that_can_be_laid_out(operations: list[Operation]) -> None:
    """Each entry lies in a directory that is there, no two states are equal, and the last kill leaves the whole run's end."""
    log = log_of(*operations)
    found, contents = all_states(log)
    for one in found:
        folders = {entry.path for entry in one.tree.entries if entry.kind == "dir"} | {""}
        assert all(entry.path.rpartition("/")[0] in folders for entry in one.tree.entries)
        assert all(entry.content in contents for entry in one.tree.entries if entry.kind == "file")
    trees = [[(entry.path, entry.kind, entry.content) for entry in one.tree.entries] for one in found]
    assert len(trees) == len({tuple(tree) for tree in trees})
    end = replayed(log, Tree(), contents.__getitem__)
    assert [(entry.path, entry.kind, entry.content) for entry in end.entries] in trees


@given(st.lists(OPERATIONS, max_size=8))
def test_what_is_synced_at_once_is_never_lost(operations: list[Operation]) -> None:
    """With everything synced after each operation, a power failure leaves what a kill leaves, or what was last synced."""
    each = [step for one in operations for step in (one, Operation(kind="sync_all", path=""))]
    found, _ = all_states(log_of(*each))
    assert [] == [one.lost for one in found if one.lost and each[one.operations - 1].kind == "sync_all"]
