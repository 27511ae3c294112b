"""Acting on modules as soon as a job has imported them, in its own process and in that of pytest."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Final, TypeAlias

Action: TypeAlias = Callable[[ModuleType], None]

#: What the pytest process imports before the next experiment once a job has used it; importing takes seconds. With all
#: that lies below them, but for torch: some of its modules start processes as they are imported.
_WORTH_IMPORTING: Final = (
    *("transformers", "accelerate", "peft", "datasets", "trl", "numpy", "pytest_ckpt"),
    *("torch", "torch._dynamo", "torch.distributed.checkpoint"),
)


def after_import(name: str, action: Action) -> None:
    """Call `action` with the module of that name now if it is imported, else right after it has been."""
    if name in sys.modules:
        action(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, action))


def worth_importing(*, since: Collection[str]) -> list[str]:
    """Return what this process has imported that the next one should find there.

    Args:
        since: the modules that were there before.
    """
    return [name for name in sys.modules if name not in since and _is_worth_importing(name)]


def _is_worth_importing(name: str) -> bool:
    package = name.partition(".")[0]
    return name in _WORTH_IMPORTING or (package in _WORTH_IMPORTING and package != "torch")


def catch_up(modules: Iterable[str]) -> None:
    """Import here what a job has imported in its process, as far as that can be, so that the next need not."""
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception), warnings.catch_warnings():  # the job was told what there is to tell
                warnings.simplefilter("ignore")
                importlib.import_module(name)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module through all other finders and wraps its loader."""

    def __init__(self, name: str, action: Action) -> None:
        self._name = name
        self._action = action
        self._busy = False

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name or self._busy:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._action)
        return spec


class _Loader(importlib.abc.Loader):
    """Executes a module as its own loader would and then acts on it."""

    def __init__(self, loader: importlib.abc.Loader, action: Action) -> None:
        self._loader = loader
        self._action = action

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._action(module)
