"""Reading a file runs and imports nothing of it, whatever the file asks for."""

from __future__ import annotations

import copyreg
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from pytest_ckpt.checkpoints.digest import tensor_digest
from pytest_ckpt.checkpoints.reading import ReadError, read_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

FORMS = ("torch-zip", "torch-legacy", "pickle")


class Call:
    """Pickles as a call of a function, itself the result of a call perhaps, with whatever pickle does afterwards."""

    def __init__(self, function: object, *args: object, then: tuple[object, ...] = ()) -> None:
        self.parts = (function, args, *then)

    def __call__(self) -> None:
        """Let pickle take the object for a function."""

    def __reduce__(self) -> Any:  # noqa: ANN401 - as pickle takes it
        return self.parts


class Trap:
    """Touches the file that it is told of, by whichever of its methods an unpickler calls."""

    def __new__(cls, path: str = "") -> Trap:  # noqa: PYI034 - what Self would say needs another import
        """Step in, if told where."""
        return super().__new__(cls).spring(path)

    def spring(self, path: str) -> Trap:
        """Touch the file."""
        if path:
            Path(path).touch()
        return self

    def __setstate__(self, state: str) -> None:
        self.spring(state)

    def append(self, value: str) -> None:
        """Act like a list."""
        self.spring(value)

    def __setitem__(self, key: str, value: str) -> None:
        self.spring(value)


class TrapKey(Trap):
    """Steps in when it is put into a mapping."""

    path = ""

    def __setstate__(self, state: str) -> None:
        self.path = state

    def __hash__(self) -> int:
        return id(self.spring(self.path))


class TrapNew(Trap):
    """Pickles as the making of an object of this class with an argument."""

    path = ""

    @classmethod
    def at(cls, path: str) -> TrapNew:
        """Return one that is harmless until it is unpickled."""
        trap = cls()
        trap.path = path
        return trap

    def __reduce__(self) -> Any:  # noqa: ANN401 - as pickle takes it
        return copyreg.__newobj__, (TrapNew, self.path)  # type: ignore[attr-defined]


EVIL: dict[str, Callable[[str], object]] = {
    "system": lambda marker: Call(os.system, f"touch {marker}"),
    "eval": lambda marker: Call(eval, f"open({marker!r}, 'w').close()"),  # noqa: S307 - the subject
    "exec": lambda marker: Call(exec, f"open({marker!r}, 'w').close()"),
    "getattr": lambda marker: Call(Call(getattr, Call(__import__, "os"), "mkdir"), marker),
    "nested call": lambda marker: [Call(list, Call(map, os.mkdir, [marker]))],
    "new": TrapNew.at,
    "state": lambda marker: Call(Trap, then=(marker,)),
    "appended": lambda marker: Call(Trap, then=(None, iter([marker]))),
    "item": lambda marker: Call(Trap, then=(None, None, iter([("key", marker)]))),
    "key": lambda marker: {Call(TrapKey, then=(marker,)): 1},
    "rebuilt tensor": lambda marker: Call(torch._utils._rebuild_parameter, Call(Trap, marker), False, {}),  # noqa: SLF001, FBT003
}


def write(tree: object, path: Path, form: str) -> None:
    """Save in one of the three ways in which pickles come to be in files."""
    if form == "pickle":
        path.write_bytes(pickle.dumps(tree, protocol=4))
    else:
        torch.save(tree, path, _use_new_zipfile_serialization=form == "torch-zip", pickle_protocol=4)


def unpickle(path: Path, form: str) -> None:
    """Read a file in the way that runs what it holds."""
    if form == "pickle":
        pickle.loads(path.read_bytes())  # noqa: S301 - the proof that the file is evil
    else:
        torch.load(path, weights_only=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_nothing_that_a_file_calls_is_called(evil: Callable[[str], object], form: str, tmp_path: Path) -> None:
    """An evil file leaves no trace when it is read, and its tensors are found; unpickled, it does what it says."""
    marker = tmp_path / "marker"
    write({"evil": evil(str(marker)), "weight": torch.arange(3.0)}, tmp_path / "evil.pt", form)
    content = read_tensors(tmp_path / "evil.pt")
    assert not marker.exists()
    assert tensor_digest(torch.arange(3.0)) == content.tensors[-1].digest
    try:
        unpickle(tmp_path / "evil.pt", form)
    except (AttributeError, TypeError):  # what was rebuilt is no tensor: too late
        assert marker.exists()
    assert marker.exists()


@pytest.mark.parametrize(
    "named",
    [b"cplanted\nevil\n", b"(iplanted\nevil\n", b"\x8c\x07planted\x8c\x04evil\x93"],
    ids=["GLOBAL", "INST", "STACK_GLOBAL"],
)
def test_no_module_that_a_file_names_is_imported(named: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class in a file is only a name: reading imports nothing, unpickling imports its module."""
    (tmp_path / "planted.py").write_text("class evil: pass\n", encoding="utf-8")
    (tmp_path / "file").write_bytes(b"\x80\x04]" + named + b"aK\x07a.")
    monkeypatch.syspath_prepend(tmp_path)
    assert {"1": 7} == read_tensors(tmp_path / "file").scalars
    assert "planted" not in sys.modules
    unpickle(tmp_path / "file", "pickle")
    assert sys.modules.pop("planted").__file__ == str(tmp_path / "planted.py")


def test_a_registered_extension_code_is_not_called(tmp_path: Path) -> None:
    """A short code for a function, registered in this process, stays as inert as the function's name."""
    marker = str(tmp_path / "marker").encode()
    copyreg.add_extension("os", "mkdir", 0x7E01)
    try:
        call = b"\x80\x02\x83\x01\x7e" + b"X" + len(marker).to_bytes(4, "little") + marker + b"\x85R."
        (tmp_path / "file").write_bytes(call)
        assert {"": marker.decode()} == read_tensors(tmp_path / "file").scalars
        assert not (tmp_path / "marker").exists()
        unpickle(tmp_path / "file", "pickle")
        assert (tmp_path / "marker").exists()
    finally:
        copyreg.remove_extension("os", "mkdir", 0x7E01)


def test_a_list_within_itself_is_cut(tmp_path: Path) -> None:
    """A cycle ends where it begins again."""
    cycle: list[object] = [1]
    cycle.append(cycle)
    write({"cycle": cycle, "after": 2}, tmp_path / "file", "pickle")
    assert {"cycle.0": 1, "after": 2} == read_tensors(tmp_path / "file").scalars


def test_a_file_that_unfolds_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that contain lists twice over, or thousands deep, are refused instead of walked."""
    monkeypatch.setattr("pytest_ckpt.checkpoints.formats.tree._MOST_NODES", 10_000)
    wide: list[object] = [1]
    for _ in range(60):
        wide = [wide, wide]
    (tmp_path / "wide").write_bytes(pickle.dumps(wide))
    (tmp_path / "deep").write_bytes(b"\x80\x02" + b"(" * 20_000 + b"l" * 20_000 + b".")
    for name in ("wide", "deep"):
        with pytest.raises(ReadError, match="nested deeper than"):
            read_tensors(tmp_path / name)


def test_a_mapping_key_that_nests_deeply_is_not_hashed(tmp_path: Path) -> None:
    """A tuple of tuples of tuples as a key, whose hash would overflow the stack, is walked over."""
    nested = b"\x80\x02}" + b"K\x01" + b"\x85" * 200_000 + b"K\x02s."
    (tmp_path / "file").write_bytes(nested)
    assert [2] == list(read_tensors(tmp_path / "file").scalars.values())
