"""A program of several ranks, started by torchrun, is seen as a whole: each rank's operations, under its number."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from crashes.conftest import content

if TYPE_CHECKING:
    from pathlib import Path

    from crashes.conftest import Programs

pytest.importorskip("torch")

PROGRAM = """
import sys, warnings
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

torch.set_num_threads(1)
dist.init_process_group("gloo")
state = {f"w{i}": torch.full((64, 64), float(i)) for i in range(4)}
for step in (1, 2):
    dcp.save({"model": state, "step": torch.tensor(step)}, checkpoint_id=f"{sys.argv[1]}/step{step}")
dist.destroy_process_group()
"""


def test_two_ranks_save_a_distributed_checkpoint(programs: Programs, tmp_path: Path) -> None:
    """The log leads to what lies there, and both ranks are in it."""
    script = tmp_path / "save.py"
    script.write_text(PROGRAM, encoding="utf-8")

    def program(root: Path) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", script, root]
        subprocess.run(list(map(str, command)), check=True)

    traced = programs.run(program)
    assert 0 == traced.ended.exit_code, (traced.root.parent / "stderr").read_text(encoding="utf-8")
    assert content(traced.left) == content(traced.replayed)
    assert {0, 1} == {operation.rank for operation in traced.operations if (operation.path or "").endswith(".distcp")}
    assert {0} == {
        operation.rank for operation in traced.operations if (operation.path or "").endswith(".metadata.tmp")
    }
