"""Crash states in which a job fails: kept with a report, and started again by one command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_ckpt.crashes.stopping import why_not

if TYPE_CHECKING:
    from plugin.conftest import Sessions

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be traced here")

JOB = """
    import torch
    from pathlib import Path

    @pytest.mark.ckpt_crash_safe
    def test_job(ckpt_job):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        last, done = Path(ckpt_job.dir, "last.pt"), 0
        if ckpt_job.restarting and last.exists():
            saved = torch.load(last)
            model.load_state_dict(saved["model"])
            done = saved["step"]
        for step in range(done + 1, 7):
            model(torch.full((8, 4), step / 10)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 2 == 0:
                torch.save({"model": model.state_dict(), "step": step}, last)
"""


def test_a_broken_state_is_kept_and_tried_again(sessions: Sessions) -> None:
    """The report says what was being done, the directory is what lay there, and the command shows the failure again."""
    sessions.write(JOB)
    output = sessions("--ckpt-contract").stdout.str()
    kept = re.search(r"kept +(\S+/states)\n", output)
    assert kept is not None, output
    (state,) = Path(kept[1]).iterdir()
    command = f'pytest --ckpt-contract --ckpt-crash {state.name} "test_jobs.py::test_job[crash_safe]"'
    report = (state / "report.txt").read_text(encoding="utf-8")
    assert "open last.pt, emptied\n    -- crash --\n" in report
    assert ["last.pt"] == [path.name for path in (state / "directory").iterdir()]
    assert f"again      {command}\n" in report
    assert "    state  newest whole  killed in or after     a restart\n" in output
    assert f"    {state.name}      none          open last.pt, emptied  refused: EOFError\n" in output
    assert f"  replay   {command}\n" in output
    again = sessions("--ckpt-contract", "--ckpt-crash", state.name, "test_jobs.py::test_job[crash_safe]").stdout.str()
    assert "in 1 of 1 state that a kill can leave" in again


def test_of_many_restarts_that_fail_one_is_heard(sessions: Sessions) -> None:
    """All say the same; what the others said lies with the evidence."""
    sessions.write("""
        import torch
        from pathlib import Path

        @pytest.mark.ckpt_crash_safe
        def test_job(ckpt_job):
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 2)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            folder, done = Path(ckpt_job.dir), 0
            if ckpt_job.restarting:
                marks = sorted(path.stem for path in folder.glob("*.done"))
                files = sorted(path.stem for path in folder.glob("*.pt"))
                if files != marks:
                    print("it can't go on")
                    raise RuntimeError("a file without its mark")
                if files:
                    saved = torch.load(folder / f"{files[-1]}.pt")
                    model.load_state_dict(saved["model"])
                    done = saved["step"]
            for step in range(done + 1, 5):
                model(torch.full((8, 4), step / 10)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                torch.save({"model": model.state_dict(), "step": step}, folder / f"step_{step}.pt")
                (folder / f"step_{step}.done").touch()
    """)
    output = sessions("--ckpt-contract").stdout.str()
    states = re.search(r"in (\d+) of \d+ states", output)
    assert states is not None, output
    assert int(states[1]) > 1
    assert 1 == len(re.findall(r"-- ckpt restart after crash \d+ stdout --", output))
    assert 1 == output.count("it can't go on")


def test_a_job_that_fails_as_it_should_is_not_heard(sessions: Sessions) -> None:
    """Where one call of many that fail is passed over, the errors of the others are no news."""
    sessions.write("""
        import torch
        from pathlib import Path

        @pytest.mark.ckpt_disk_full
        def test_job(ckpt_job):
            torch.manual_seed(0)
            model = torch.nn.Linear(4, 2)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(1, 4):
                model(torch.full((8, 4), step / 10)).square().mean().backward()
                optimizer.step()
                try:
                    torch.save({"model": model.state_dict(), "step": step}, Path(ckpt_job.dir, f"step_{step}.pt"))
                    Path(ckpt_job.dir, "steps.txt").write_text(str(step))
                except OSError:
                    print("no more room")
                    raise
                except RuntimeError:  # of torch
                    pass
    """)
    output = sessions("--ckpt-contract").stdout.str()
    assert "test_job    BROKEN" in output
    assert "no more room" not in output
