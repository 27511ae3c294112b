"""A file system in memory, to which the operations of a job are applied one by one: what a crash would find after each."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from pytest_ckpt.crashes.node import Node, entry_of, padded
from pytest_ckpt.records.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pytest_ckpt.records.operation import Operation


class FileSystem:
    """A directory tree that operations change as the kernel would; one that the kernel refuses changes nothing.

    Args:
        tree: what was there before.
        read: gives the content of a file of `tree` by its digest.
        data: gives bytes of the log: their offset, and how many.
    """

    def __init__(self, tree: Tree, read: Callable[[str], bytes], data: Callable[[int, int], bytes]) -> None:
        self._data = data
        self._nodes: dict[str, Node] = {"": Node("dir", mode=0o755, names=1)}
        self._by_inode: dict[int, Node] = {}
        for entry in tree.entries:
            content = read(entry.content) if entry.kind == "file" else b""
            target = entry.content if entry.kind == "link" else ""
            self._nodes[entry.path] = Node(entry.kind, content, target, entry.mode, entry.mtime_ns, names=1)

    @property
    def tree(self) -> Tree:
        """All that is there now."""
        return Tree(entries=tuple(entry_of(path, self._nodes[path]) for path in sorted(self._nodes) if path))

    def files(self) -> Iterator[Node]:
        """Yield the files that have names, each once."""
        yield from dict.fromkeys(node for _, node in self.named_files())

    def named_files(self) -> Iterator[tuple[str, Node]]:
        """Yield the paths of all files, with what lies there."""
        yield from ((path, node) for path, node in self._nodes.items() if node.kind == "file")

    def folders(self) -> Iterator[tuple[str, Node]]:
        """Yield the paths of all directories, the root's being empty."""
        yield from ((path, node) for path, node in self._nodes.items() if node.kind == "dir")

    def names_in(self, path: str) -> dict[str, Node]:
        """Return what lies directly in a directory, by its name there."""
        return {name.rpartition("/")[2]: node for name, node in self._nodes.items() if name and _parent(name) == path}

    def node_of(self, operation: Operation) -> Node | None:
        """Return what an operation on a descriptor, or on a path, is about."""
        named = None if operation.path is None else self._nodes.get(operation.path)
        return named if named is not None and named.kind == "dir" else self._file(operation)

    # -- another in its place ------------------------------------------------------------------------------------------

    def copy(self) -> FileSystem:
        """Return another that goes its own way from here on."""
        nodes = {node: copy.copy(node) for node in (*self._nodes.values(), *self._by_inode.values())}
        other = self._with({path: nodes[node] for path, node in self._nodes.items()})
        other._by_inode = {inode: nodes[node] for inode, node in self._by_inode.items()}  # noqa: SLF001 - of this class
        return other

    def with_contents(self, contents: Mapping[Node, bytes]) -> FileSystem:
        """Return one to look at in which some files have other contents."""
        others = {node: copy.copy(node) for node in contents}
        for node, other in others.items():
            other.change(contents[node], node.mtime_ns)
        return self._with({path: others.get(node, node) for path, node in self._nodes.items()})

    def with_names(self, path: str, names: Mapping[str, Node]) -> FileSystem:
        """Return one to look at in which a directory has other names; what lies below each goes with it."""
        where = {node: name for name, node in self._nodes.items()}
        nodes = {name: node for name, node in self._nodes.items() if not _is_below(name, path) or name == path}
        for own, node in names.items():
            name = f"{path}/{own}" if path else own
            nodes[name] = node
            now = where.get(node)
            if now is not None and node.kind == "dir":
                nodes.update({name + other.removeprefix(now): self._nodes[other] for other in self._below(now)})
        return self._with(nodes)

    def _with(self, nodes: dict[str, Node]) -> FileSystem:
        other = copy.copy(self)
        other._nodes = nodes  # noqa: SLF001 - it is of this class
        return other

    def apply(self, operation: Operation, *, cut: int | None = None) -> None:
        """Carry an operation out.

        Args:
            cut: how many bytes of a write arrive; None for all.
        """
        match operation.kind:
            case "write":
                self._write(operation, operation.size if cut is None else cut)
            case "truncate" | "allocate" | "zero":
                self._resize(operation)
            case "times" if (node := self._file(operation) or self._nodes.get(operation.path or "")) is not None:
                node.mtime_ns = operation.size or operation.time_ns
            case _:
                self._rearrange(operation)

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _file(self, operation: Operation) -> Node | None:
        """Return the file that an operation is about: by its number, if it is known by that, or else by its name."""
        named = None if operation.path is None else self._nodes.get(operation.path)
        if not operation.inode:
            return named if named is not None and named.kind == "file" else None
        known = self._by_inode.get(operation.inode)
        if known is None or (not known.names and named is not None):  # numbers of removed files are used again
            known = named if named is not None and named.kind == "file" else Node("file", mtime_ns=operation.time_ns)
            self._by_inode[operation.inode] = known
        return known

    def _write(self, operation: Operation, size: int) -> None:
        file = self._file(operation)
        if file is None or operation.data is None or not size:
            return
        start = len(file.content) if operation.offset is None else operation.offset
        before = padded(file.content, start)
        after = before[start + size :]
        file.change(before[:start] + self._data(operation.data, size) + after, operation.time_ns)

    def _resize(self, operation: Operation) -> None:
        file = self._file(operation)
        if file is None:
            return
        start, end = operation.offset or 0, (operation.offset or 0) + operation.size
        content = file.content
        match operation.kind:
            case "truncate":
                content = padded(content, operation.size)[: operation.size]
            case "allocate":
                content = padded(content, end)
            case "zero":
                end = min(end, len(content)) if operation.exclusive else end
                content = padded(content, end)
                content = content[:start] + bytes(max(0, end - start)) + content[max(start, end) :]
        file.change(content, operation.time_ns)

    # -- names ---------------------------------------------------------------------------------------------------------

    def _rearrange(self, operation: Operation) -> None:
        match operation.kind:
            case "open":
                self._open(operation)
            case "mkdir":
                self._add(operation.path, Node("dir", mode=0o755, mtime_ns=operation.time_ns))
            case "symlink":
                self._add(operation.path, Node("link", target=operation.target, mtime_ns=operation.time_ns))
            case "rmdir" | "unlink" | "depart":
                self._remove(operation)
            case "rename" | "exchange":
                self._rename(operation)
            case "link":
                self._link(operation)
            case "arrive":
                self._arrive(operation)

    def _open(self, operation: Operation) -> None:
        there = self._nodes.get(operation.path or "")
        if there is None:
            self._add(operation.path, Node("file", mtime_ns=operation.time_ns))
        elif operation.empties and not operation.exclusive and there.kind == "file" and there.content:
            there.change(b"", operation.time_ns)

    def _add(self, path: str | None, node: Node) -> None:
        """Give a node a name that is free, in a directory that is there."""
        if path and path not in self._nodes and self._is_dir(_parent(path)):
            self._set(path, node)

    def _set(self, path: str, node: Node) -> None:
        self._nodes[path] = node
        node.names += 1

    def _take(self, path: str) -> Node:
        node = self._nodes.pop(path)
        node.names -= 1
        return node

    def _is_dir(self, path: str) -> bool:
        node = self._nodes.get(path)
        return node is not None and node.kind == "dir"

    def _below(self, path: str) -> list[str]:
        return [name for name in self._nodes if name.startswith(path + "/")]

    def _remove(self, operation: Operation) -> None:
        path = operation.path or ""
        node = self._nodes.get(path)
        if (
            node is None
            or not path
            or ((operation.kind == "rmdir") != (node.kind == "dir") and operation.kind != "depart")
        ):
            return
        below = self._below(path)
        if below and operation.kind != "depart":
            return  # a directory that holds something stays
        for name in (*below, path):
            self._take(name)

    def _rename(self, operation: Operation) -> None:
        old, new = operation.path or "", operation.target
        node, there = self._nodes.get(old), self._nodes.get(new)
        if node is None or not old or not new or new.startswith(old + "/") or not self._is_dir(_parent(new)):
            return
        if operation.kind == "exchange":
            if there is not None and not old.startswith(new + "/"):
                self._exchange(old, new)
            return
        if there is node or (there is not None and (operation.exclusive or not self._gives_way(node, new))):
            return
        if there is not None:
            self._take(new)
        self._move({name: new + name.removeprefix(old) for name in (old, *self._below(old))})

    def _gives_way(self, node: Node, path: str) -> bool:
        """Say whether what lies at a path may be replaced: a directory by a directory if it is empty, and others by others."""
        return (node.kind == "dir") == (self._nodes[path].kind == "dir") and not self._below(path)

    def _exchange(self, old: str, new: str) -> None:
        there = {name: new + name.removeprefix(old) for name in (old, *self._below(old))}
        back = {name: old + name.removeprefix(new) for name in (new, *self._below(new))}
        self._move({**there, **back})

    def _move(self, names: dict[str, str]) -> None:
        moved = {new: self._nodes.pop(old) for old, new in names.items()}
        self._nodes.update(moved)

    def _link(self, operation: Operation) -> None:
        node = self._file(operation) if operation.path is None else self._nodes.get(operation.path)
        if node is not None and node.kind != "dir":
            self._add(operation.target, node)

    def _arrive(self, operation: Operation) -> None:
        path = operation.path or ""
        is_dir = operation.data is None
        node = Node("dir" if is_dir else "file", mode=0o755 if is_dir else 0o644, mtime_ns=operation.time_ns)
        if path in self._nodes:
            if not self._gives_way(node, path):
                return
            self._take(path)
        if operation.data is not None:
            node.content = self._data(operation.data, operation.size)
        self._add(path, node)
        if operation.inode:
            self._by_inode[operation.inode] = node
        for part in operation.parts:
            self.apply(part)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")
