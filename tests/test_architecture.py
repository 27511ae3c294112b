"""No framework is imported before it is needed: not by the plugin, nor by anything that importing the plugin imports.

import-linter guards the direction of our own imports, but sees those inside functions too, which is where frameworks
belong. So these rules read the syntax tree.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import pytest_ckpt

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(pytest_ckpt.__file__).parent
FRAMEWORKS: Final = frozenset(
    {
        "accelerate",
        "composer",
        "deepspeed",
        "flax",
        "ignite",
        "jax",
        "keras",
        "lightning",
        "numpy",
        "orbax",
        "peft",
        "pytorch_lightning",
        "torch",
        "transformers",
        "trl",
    }
)
# Modules that import a framework at module level: others import them inside functions only.
FRAMEWORK_MODULES: Final = (
    "pytest_ckpt.frameworks.stand_in",
    "pytest_ckpt.runs.discover",
    "pytest_ckpt.runs.forwards",
    "pytest_ckpt.runs.inventory",
    "pytest_ckpt.runs.naming",
    "pytest_ckpt.runs.probe",
    "pytest_ckpt.runs.readings",
    "pytest_ckpt.runs.training_calls",
    "pytest_ckpt.tiny.",
)
SOURCES: Final = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def is_for_type_checkers(node: ast.stmt) -> bool:
    """Tell whether a statement is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def statements_run_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Walk what runs when the module is imported: everything but the bodies of functions and of TYPE_CHECKING."""
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for name in ("body", "orelse", "handlers", "finalbody"):
            if not (name == "body" and is_for_type_checkers(node)):
                yield from statements_run_at_import(getattr(node, name, []))


def imported_at_module_level(source: str) -> Iterator[str]:
    """Name each module that importing this source imports; `from a import b` names `a`, and `a.b` in case it is one."""
    for node in statements_run_at_import(ast.parse(source).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_imported_with(module: str) -> set[str]:
    """Name everything that importing a module of ours imports, through other modules of ours too."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = set(imported_at_module_level(SOURCES[waiting.pop()].read_text(encoding="utf-8"))) - found
        found |= new
        waiting.extend(new & SOURCES.keys())
    return found


def frameworks_imported_with(module: str) -> set[str]:
    """Name the frameworks among them."""
    return {name.partition(".")[0] for name in modules_imported_with(module)} & FRAMEWORKS


@pytest.mark.parametrize("module", [module for module in SOURCES if not module.startswith(FRAMEWORK_MODULES)])
def test_importing_a_module_imports_no_framework(module: str) -> None:
    """A framework, and a module of ours that imports one, is imported inside the function that needs it."""
    assert set() == frameworks_imported_with(module)


@pytest.mark.parametrize("prefix", FRAMEWORK_MODULES)
def test_the_list_of_framework_modules_is_no_longer_than_needed(prefix: str) -> None:
    """What is excused from the rule makes use of it."""
    assert any(frameworks_imported_with(module) for module in SOURCES if module.startswith(prefix))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn, numpy", ["torch.nn", "numpy"]),
        ("from torch import nn", ["torch", "torch.nn"]),
        ("try:\n    import torch\nexcept ImportError:\n    import numpy", ["torch", "numpy"]),
        ("class Probe:\n    import torch", ["torch"]),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import numpy", ["numpy"]),
        ("with context:\n    import torch", ["torch"]),
        ("def probe():\n    import torch", []),
        ("from . import torch", []),
    ],
)
def test_the_rules_see_what_runs_at_import_and_nothing_else(source: str, found: list[str]) -> None:
    """An import counts wherever importing the module runs it: in a class or a try, but not in a function."""
    assert found == list(imported_at_module_level(source))
