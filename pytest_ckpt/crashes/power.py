"""What a power failure can leave: names as after a kill, but without bytes, or names, that had not been made durable.

The model, for the operations since the last save had ended:

* Bytes of a file that were written after its last fsync may be lost, all or a part: the file then has what it had at that
  fsync, or half of what came after. Each file may lose them alone, or all of them together.
* Names that were made, changed or removed in a directory after its last fsync may be lost together: the directory then has
  the names that it had at that fsync, one that was made since has none. Each directory may lose them alone.
* What an earlier save wrote is durable: between two saves of a real run the kernel has time to write it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pytest_ckpt.records.crash import CrashState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pytest_ckpt.crashes.filesystem import FileSystem
    from pytest_ckpt.crashes.log import Log
    from pytest_ckpt.crashes.node import Node
    from pytest_ckpt.records.operation import Operation

#: Operations after which a power failure is looked at: they name what was written, or remove what it replaces.
_NAMING: Final = frozenset({"rename", "exchange", "link", "symlink", "unlink", "rmdir", "arrive", "depart"})


def unplugged(log: Log, files: FileSystem, ends: Sequence[int]) -> Iterator[tuple[CrashState, FileSystem]]:
    """Yield what power failures after each operation that names or removes something, and after each save, can leave.

    Args:
        files: what was there before the run; changed.
        ends: when saves were seen to have ended, in nanoseconds since the epoch, in order.
    """
    durable = _Durable(files)
    for number, operation in enumerate(log.operations):
        if number and _between(log.operations[number - 1], operation, ends):
            durable = _Durable(files)
        files.apply(operation)
        durable.note(operation)
        is_last = number + 1 == len(log.operations) or _between(operation, log.operations[number + 1], ends)
        if operation.kind in _NAMING or is_last:
            for lost, left in durable.losses():
                yield CrashState(operations=number + 1, lost=lost), left


def _between(before: Operation, after: Operation, ends: Sequence[int]) -> bool:
    """Say whether a save has ended between two operations."""
    return any(before.time_ns <= end < after.time_ns for end in ends)


class _Durable:
    """What of a file system would survive, from now on.

    Args:
        files: all that is there now is durable; what is changed from now on is not, until it is synced.
    """

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self._contents: dict[Node, bytes] = {}
        self._names: dict[Node, dict[str, Node]] = {}
        self._note_all()

    def _note_all(self) -> None:
        self._contents = {node: node.content for node in self._files.files()}
        self._names = {node: self._files.names_in(path) for path, node in self._files.folders()}

    def note(self, operation: Operation) -> None:
        """Take notice of what makes something durable."""
        if operation.kind == "sync_all":
            self._note_all()
        elif operation.kind == "sync" and (node := self._files.node_of(operation)) is not None:
            if node.kind == "dir":
                self._names[node] = self._files.names_in(operation.path or "")
            else:
                self._contents[node] = node.content

    def losses(self) -> Iterator[tuple[str, FileSystem]]:
        """Yield each loss with what it leaves."""
        at_risk = [(path, node) for path, node in self._files.named_files() if self._kept(node) != node.content]
        for path, node in at_risk:
            yield f"the bytes of {path}", self._files.with_contents({node: self._kept(node)})
            half = node.content[: len(node.content) // 2]
            if len(half) > len(self._kept(node)):
                yield f"half of the bytes of {path}", self._files.with_contents({node: half})
        if len(at_risk) > 1:
            lost = {node: self._kept(node) for _, node in at_risk}
            yield f"the bytes of {len(at_risk)} files", self._files.with_contents(lost)
        for path, folder in self._files.folders():
            before = self._names.get(folder, {})  # one that was made since is on disk as it was made: empty
            if before != self._files.names_in(path):
                yield f"the changed names in {path or 'its directory'}", self._files.with_names(path, before)

    def _kept(self, node: Node) -> bytes:
        """Return what a file would have after a failure."""
        return self._contents.get(node, b"")
