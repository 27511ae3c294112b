"""What the processes of a job would each do again is done once, in the process that they are forked from."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING

from pytest_ckpt.runs.child import RunPlan, run_job
from pytest_ckpt.runs.imports import catch_up
from pytest_ckpt.runs.job import Job
from pytest_ckpt.runs.journal import events
from pytest_ckpt.runs.supervise import run_forked

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_imports_are_caught_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that warns is imported silently; one that raises or is gone by now is left to the job."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "warns_when_imported.py").write_text("import warnings\nwarnings.warn('old')\n", encoding="utf-8")
    (tmp_path / "raises_when_imported.py").write_text("raise RuntimeError('not here')\n", encoding="utf-8")
    with warnings.catch_warnings(record=True) as seen:
        catch_up(["raises_when_imported", "gone_by_now", "warns_when_imported"])
    assert [] == seen
    found = {name: name in sys.modules for name in ("raises_when_imported", "warns_when_imported")}
    assert {"raises_when_imported": False, "warns_when_imported": True} == found
    del sys.modules["warns_when_imported"]


def test_a_run_tells_which_frameworks_it_has_imported(tmp_path: Path) -> None:
    """Those that the process had before are not named, nor are the job's own modules and torch's inner ones."""
    directory = tmp_path / "job"
    directory.mkdir()
    (tmp_path / "transformers").mkdir()
    for name in ("transformers/__init__.py", "transformers/own.py", "training.py"):
        (tmp_path / name).write_text("", encoding="utf-8")

    def body() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
            del sys.modules[name]
        sys.path.insert(0, str(tmp_path))
        for name in ("torch.utils.benchmark", "training", "transformers.own"):
            importlib.import_module(name)

    plan = RunPlan(
        job=Job(directory),
        body=body,
        directory=directory,
        folder=tmp_path,
        store=tmp_path / "evidence",
        seed=0,
        resume_from=None,
        is_baseline=True,
        stop_after=None,
        frameworks=(),
    )
    run_forked(lambda: run_job(plan), timeout=60, stdout=tmp_path / "out", stderr=tmp_path / "err")
    named = next(data["modules"] for event, data in events(plan.journal) if event == "imported")
    before = "transformers" in sys.modules
    assert ([] if before else ["transformers"]) + ["transformers.own"] == [n for n in named if "transformers" in n]
    assert not {"training", "torch.utils.benchmark"} & set(named)
