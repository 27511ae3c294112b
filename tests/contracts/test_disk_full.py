"""A full or failing disk: saves that swallow it, that lose the checkpoint before, that leave what stops a restart, and twins."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from jobs import hf, pl, saves
from pytest_ckpt.contracts.base import NoAdvice
from pytest_ckpt.contracts.faulted import Faulted
from pytest_ckpt.contracts.filling import DiskFull
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.records.experiment import TRACED
from pytest_ckpt.records.run import Outcome, RunRecord
from pytest_ckpt.records.said import Said

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Job
    from pytest_ckpt.records.verdict import Verdict

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "calls are seen here")


def verdict_of(judge: Judge, job: Callable[[Job], object], *, timeout: float = 60.0, **given: Any) -> Verdict:
    """Return the contract's verdict on a job."""
    return judge(job, DiskFull(**given), timeout=timeout)["disk_full"]


def rows(verdict: Verdict) -> dict[str, str]:
    """Return the rows of the first finding; of those with one label, the last."""
    return {row[0]: row[1] for row in verdict.findings[0].rows}


# -- saves that hold ---------------------------------------------------------------------------------------------------


def test_a_rename_that_lets_the_error_out_holds(judge: Judge) -> None:
    """Each of the calls of a save fails in turn, and each time the job ends with an error and starts again."""
    verdict = verdict_of(judge, saves.loop(saves.renamed))
    assert "held" == verdict.status, verdict
    assert "of 9 calls of a save that failed, 9 ended the job with an error; 1 restart went on" == verdict.sentence


def test_a_folder_that_is_renamed_as_a_whole_holds(judge: Judge) -> None:
    """What it leaves under a temporary name is not in the way."""
    assert "held" == verdict_of(judge, saves.loop(saves.folder_renamed, name="step_{step}")).status


def test_one_name_that_is_replaced_by_a_rename_holds(judge: Judge) -> None:
    """The old content stays until the new one is whole."""
    assert "held" == verdict_of(judge, saves.loop(saves.renamed, name="last.pt")).status


def test_a_thread_whose_error_is_raised_later_holds(judge: Judge) -> None:
    """At the next save, or at the end."""

    def train(job: Job) -> None:
        writer = saves.InThread(tells=True)
        saves.loop(writer.save, finish=writer.finish)(job)

    assert "held" == verdict_of(judge, train).status


def test_a_save_that_is_tried_again_holds(judge: Judge) -> None:
    """An error that comes once costs nothing then, and nothing has to be said of it."""

    def again(state: dict[str, Any], path: Path) -> None:
        try:
            saves.renamed(state, path)
        except OSError:
            saves.renamed(state, path)

    verdict = verdict_of(judge, saves.loop(again))
    assert "held" == verdict.status, verdict
    assert "3 cost no save" in verdict.sentence


def test_a_search_that_passes_over_what_is_cut_holds(judge: Judge) -> None:
    """A save in place leaves a cut file, and a restart does not take it."""
    assert "held" == verdict_of(judge, saves.loop(saves.in_place, find=saves.whole)).status


def test_a_refusal_is_enough_where_the_test_says_so(judge: Judge) -> None:
    """With `fall_back=False`."""
    verdict = verdict_of(judge, saves.loop(saves.in_place), fall_back=False)
    assert "held" == verdict.status, verdict
    assert verdict.sentence.endswith("1 restart went on and 2 restarts refused")


def test_a_log_in_the_directory_is_no_save(judge: Judge) -> None:
    """What is only added to a file that was there is not made to fail by itself."""

    def train(job: Job) -> None:
        def save(state: dict[str, Any], path: Path) -> None:
            with (job.path / "train.log").open("a", encoding="utf-8") as log:
                log.write(f"step {state['step']}\n")
            saves.renamed(state, path)

        saves.loop(save)(job)

    verdict = verdict_of(judge, train)
    assert "held" == verdict.status, verdict
    faults = [experiment.fault for experiment in judge.lab.runs if experiment.fault is not None]
    assert "train.log" not in {fault.path for fault in faults}


# -- errors that nobody hears ------------------------------------------------------------------------------------------


def test_an_error_that_is_caught_and_dropped_is_found(judge: Judge) -> None:
    """With the steps that were not saved, and the call that failed."""

    def save(state: dict[str, Any], path: Path) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            saves.renamed(state, path)

    verdict = verdict_of(judge, saves.loop(save))
    assert "violated" == verdict.status
    assert (
        "in 9 of 9 runs with a call of a save that fails, the job ended as if nothing had happened and said nothing: "
        "steps 4, 6, 8 were not saved"
    ) == verdict.sentence
    assert "well, with exit code 0" == rows(verdict)["job ended"]
    assert "step 2 whole" == rows(verdict)["on disk"]
    assert "No space left on device (ENOSPC), and all later ones" in verdict.findings[0].rows[0][1]
    assert "caught around the save" in verdict.findings[0].cause


def test_a_thread_that_ends_by_the_error_is_found(judge: Judge) -> None:
    """A traceback in the job's output is not enough where it ends well."""

    def train(job: Job) -> None:
        writer = saves.InThread(tells=False)
        saves.loop(writer.save, finish=writer.finish)(job)

    verdict = verdict_of(judge, train)
    assert "violated" == verdict.status
    assert "ended as if nothing had happened" in verdict.sentence
    assert "a thread or a process of the job has raised the error" in verdict.findings[0].cause


def test_a_job_that_waits_for_its_thread_for_ever_is_found(judge: Judge) -> None:
    """Nothing else is tried after one that hangs."""

    def train(job: Job) -> None:
        waiting: queue.Queue[tuple[dict[str, Any], Path]] = queue.Queue()

        def work() -> None:
            while True:
                saves.renamed(*waiting.get())
                waiting.task_done()

        threading.Thread(target=work, daemon=True).start()

        def save(state: dict[str, Any], path: Path) -> None:
            waiting.put((state, path))
            waiting.join()

        saves.loop(save)(job)

    verdict = verdict_of(judge, train, timeout=8.0)
    assert "violated" == verdict.status
    assert "in 1 of 1 run with a call of a save that fails, the job hung until its deadline" == verdict.sentence


def logging_save(*, last_raises: bool) -> Callable[[dict[str, Any], Path], None]:
    """Return a save that logs errors, the last one's only where it does not raise them."""

    def save(state: dict[str, Any], path: Path) -> None:
        try:
            saves.renamed(state, path)
        except (OSError, RuntimeError):
            if last_raises and state["step"] == saves.LAST:
                raise
            logging.getLogger("saves").exception("step %s could not be saved", state["step"])

    return save


def test_errors_that_are_logged_hold_where_the_last_one_ends_the_job(judge: Judge) -> None:
    """A job may go on after a save that failed, if it says so."""
    verdict = verdict_of(judge, saves.loop(logging_save(last_raises=True)))
    assert "held" == verdict.status, verdict
    assert "6 ended the job with an error, 3 were told of" in verdict.sentence


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("how", ["prints", "warns"])
def test_a_line_of_output_or_a_warning_tells_as_well(judge: Judge, how: str) -> None:
    """Whoever reads what the job puts out sees it."""

    def save(state: dict[str, Any], path: Path) -> None:
        try:
            saves.renamed(state, path)
        except OSError as error:
            text = f"step {state['step']} is missing: {error}"
            print(text) if how == "prints" else warnings.warn(text, stacklevel=2)  # noqa: T201 - a job may

    verdict = verdict_of(judge, saves.loop(save), errors=("EIO",))
    assert "held" == verdict.status, verdict
    assert "3 were told of" in verdict.sentence


@pytest.mark.parametrize(("says", "status"), [("", "violated"), ("step 4 could not be saved", "held")])
def test_a_progress_bar_tells_of_no_save(judge: Judge, tmp_path: Path, says: str, status: str) -> None:
    """It is drawn otherwise in each run, as by the clock, and has an `err` in it; a line after it tells."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def train(job: Job) -> None:
        (marks / str(runs := len(list(marks.iterdir())))).touch()

        def save(state: dict[str, Any], path: Path) -> None:
            print(f"|{'#' * runs}| {runs}{('it/s', 's/it')[runs % 2]} [val_err=0.1, err=1e-{runs}]")  # noqa: T201 - a bar
            try:
                saves.renamed(state, path)
            except OSError:
                print(says)  # noqa: T201 - a job may

        saves.loop(save)(job)

    verdict = verdict_of(judge, train, errors=("EIO",))
    assert status == verdict.status, verdict


@pytest.mark.parametrize(
    ("line", "tells"),
    [
        ("OSError: [Errno 28] No space left on device", True),
        ("step 4: No space left on device", True),
        ("Input/output error", True),
        ("error: disk quota exceeded", True),
        ("failed to save step 4", True),
        ("error saving step 4", True),
        ("checkpoint_save_failed", True),
        ("could not write model.pt", True),
        ("Couldn't write model.pt", True),
        ("can\N{RIGHT SINGLE QUOTATION MARK}t write model.pt", True),
        ("skipping the save", True),
        ("disk full", True),
        ("ENOSPC", True),
        ("WARNING  saves: step 4", True),
        ("|##| 4/8 [00:01<00:03, 12.3it/s, loss=0.3]", False),
        ("|##| 4/8 [val_err=0.1]", False),
        ("|##| 4/8 [err=0.1, error: 0.2]", False),
        ("saved to /workspace/namespace", False),
        ("the scanner can take terrain", False),
        ("error of the mean 0.25", False),
    ],
)
def test_a_line_that_tells(line: str, tells: bool) -> None:  # noqa: FBT001 - as the table has it
    """Of trouble, that the undisturbed run did not tell of; a metric and a part of a word are none."""
    undisturbed = RunRecord(
        experiment=TRACED, outcome=Outcome(status="finished"), said=(said("error of the mean 0.5"),)
    )
    run = replace(undisturbed, said=(said(line),))
    assert ((line,) if tells else ()) == Faulted(run=run, undisturbed=undisturbed, advisor=NoAdvice()).told


def said(text: str) -> Said:
    """Return a line of output."""
    return Said(step=4, source="stdout", text=text)


def test_a_job_that_ends_well_without_its_last_save_is_found(judge: Judge) -> None:
    """What is in the log is not in the exit code."""
    verdict = verdict_of(judge, saves.loop(logging_save(last_raises=False)))
    assert "violated" == verdict.status
    assert "the job ended well though its last save had failed: steps 4, 6, 8 were not saved" in verdict.sentence
    assert "ERROR    saves: step 4 could not be saved" == rows(verdict)["it said"]


def test_an_fsync_whose_error_is_passed_over_is_found(judge: Judge) -> None:
    """The file can be read, and may be gone when the machine starts again."""

    def save(state: dict[str, Any], path: Path) -> None:
        with path.with_suffix(".tmp").open("wb") as file:
            torch.save(state, file)
            file.flush()
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())
        path.with_suffix(".tmp").replace(path)

    verdict = verdict_of(judge, saves.loop(save), errors=("EIO",))
    assert "violated" == verdict.status
    assert "an fsync failed and the job said nothing" in verdict.sentence


# -- what is lost, and what stops a restart ----------------------------------------------------------------------------


def test_a_checkpoint_that_is_deleted_before_the_next_is_written_is_lost(judge: Judge) -> None:
    """Though the job ends with an error."""

    def save(state: dict[str, Any], path: Path) -> None:
        for old in path.parent.glob("step_*.pt"):
            old.unlink()
        saves.renamed(state, path)

    verdict = verdict_of(judge, saves.loop(save))
    assert "violated" == verdict.status
    assert "step_2.pt was lost, which was whole before: nothing is whole any more" in verdict.sentence
    assert "the old checkpoint is deleted before the new one is whole." == verdict.findings[0].cause


def test_a_checkpoint_that_is_written_over_is_lost(judge: Judge) -> None:
    """As with torch.save to one name."""
    verdict = verdict_of(judge, saves.loop(saves.in_place, name="last.pt"))
    assert "violated" == verdict.status
    assert "last.pt was lost, which was whole before: nothing is whole any more" in verdict.sentence
    assert "last.pt (0 bytes)" == rows(verdict)["on disk"]
    assert "the new checkpoint is written over the old one." == verdict.findings[0].cause


def test_a_cut_file_that_a_restart_takes_is_found(judge: Judge) -> None:
    """As it stops every restart until somebody deletes it."""
    verdict = verdict_of(judge, saves.loop(saves.in_place))
    assert "violated" == verdict.status
    assert "in 2 of 3 restarts after a save that failed, a restart fails though step_2.pt is whole" == verdict.sentence
    assert "step_2.pt, step 2" == rows(verdict)["newest whole"]
    assert "step_4.pt (0 bytes), step_2.pt" in rows(verdict)["on disk"]


def test_a_pointer_that_is_emptied_sends_a_restart_to_the_beginning(judge: Judge) -> None:
    """It was whole before, and so were both checkpoints."""

    def save(state: dict[str, Any], path: Path) -> None:
        saves.renamed(state, path)
        path.with_name("latest").write_text(path.name, encoding="utf-8")

    def find(folder: Path) -> Path | None:
        name = (folder / "latest").read_text(encoding="utf-8") if (folder / "latest").exists() else ""
        return folder / name if name else None

    verdict = verdict_of(judge, saves.loop(save, find=find))
    assert "violated" == verdict.status
    assert (
        "a restart begins from scratch though step_4.pt is whole, and says nothing: 4 steps are lost"
        in verdict.sentence
    )
    assert "latest (0 bytes)" in rows(verdict)["on disk"]


# -- frameworks --------------------------------------------------------------------------------------------------------


def test_transformers_refuses_what_a_full_disk_leaves(judge: Judge) -> None:
    """Its search takes the folder with the highest number, whole or not (bug HF-18)."""
    train = lambda job: job.train(hf.trainer(job, max_steps=5, save_steps=2))  # noqa: E731
    verdict = verdict_of(judge, train, most=6)
    assert "violated" == verdict.status
    assert verdict.sentence.endswith("restarts after a save that failed, a restart fails though checkpoint-2 is whole")
    verdict = verdict_of(judge, train, most=6, fall_back=False)
    assert "held" == verdict.status, verdict


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("by_name", [False, True])
def test_lightning_begins_from_scratch_where_its_link_could_not_be_made(judge: Judge, *, by_name: bool) -> None:
    """It deletes `last.ckpt` before it makes the new one, and `ckpt_path="last"` says nothing then; a search by name holds."""
    import lightning.pytorch as lightning

    def train(job: Job) -> None:
        saved = pl.checkpoint(
            "lightning.pytorch", dirpath=job.dir, every_n_train_steps=4, save_top_k=-1, save_last="link"
        )
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = lightning.Trainer(
            default_root_dir=job.dir, callbacks=[saved], max_epochs=2, accelerator="cpu", **quiet
        )
        newest = max(map(str, job.path.glob("epoch=*.ckpt")), default=None) if by_name else "last"
        trainer.fit(pl.model("lightning.pytorch"), pl.loader(), ckpt_path=newest if job.restarting else job.resume_from)

    verdict = verdict_of(judge, train, errors=("ENOSPC",))
    if by_name:
        assert "held" == verdict.status, verdict
    else:
        assert "violated" == verdict.status
        assert "a restart begins from scratch though epoch=0-step=4.ckpt is whole" in verdict.sentence


# -- what can't be said ------------------------------------------------------------------------------------------------


def test_a_job_that_saves_nothing_is_inconclusive(judge: Judge) -> None:
    """There is no call that could fail."""
    verdict = verdict_of(judge, saves.loop(lambda *_: None))
    assert "inconclusive" == verdict.status


def test_a_job_that_does_not_search_is_inconclusive(judge: Judge) -> None:
    """Its errors come out, and what a restart makes of what they leave can't be seen."""
    verdict = verdict_of(judge, lambda job: hf.run(job, max_steps=5, save_steps=2), most=2)
    assert "inconclusive" == verdict.status
    assert "the job does not search for a checkpoint" in verdict.sentence


def test_a_job_that_makes_other_calls_each_time_is_inconclusive(judge: Judge, tmp_path: Path) -> None:
    """As one that saves in fewer files when it is run again."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def train(job: Job) -> None:
        runs = len(list(marks.iterdir()))
        (marks / str(runs)).touch()

        def save(state: dict[str, Any], path: Path) -> None:
            saves.renamed(state, path)
            if runs < 2:
                path.with_suffix(".link").symlink_to(path.name)

        saves.loop(save)(job)

    verdict = verdict_of(judge, train)
    assert "inconclusive" == verdict.status
    assert "the job did not come to the call that was to fail" in verdict.sentence


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"errors": ("ENOENT",)}, "errors must be some of ENOSPC, EDQUOT, EIO; got ('ENOENT',)"),
        ({"errors": ()}, "errors must be some of ENOSPC, EDQUOT, EIO; got ()"),
        ({"errors": "EIO"}, "errors must be some of ENOSPC, EDQUOT, EIO; got 'EIO'"),
        ({"fall_back": 1}, "fall_back must be True or False; got 1"),
        ({"most": 0}, "most must be a whole number of calls, at least 1; got 0"),
        ({"most": True}, "most must be a whole number of calls, at least 1; got True"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str) -> None:
    """With what is right."""
    with pytest.raises(InvalidArgument) as raised:
        DiskFull(**given)
    assert message == str(raised.value)
