"""Saves in the background on a slow disk: of what is trained on, never waited for, or waited for wrongly; and their twins."""

from __future__ import annotations

import copy
import io
import multiprocessing
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import async_save

from jobs import hf, pl, ranks, saves
from pytest_ckpt.contracts.durable import AsyncDurable
from pytest_ckpt.crashes.stopping import why_not
from pytest_ckpt.records.experiment import TRACED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Judge
    from pytest_ckpt import Job
    from pytest_ckpt.records.verdict import Verdict

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "calls are seen here")


def verdict_of(judge: Judge, job: Callable[[Job], object], *, timeout: float = 60.0) -> Verdict:
    """Return the contract's verdict on a job."""
    return judge(job, AsyncDurable(), timeout=timeout)["async_durable"]


def rows(verdict: Verdict) -> dict[str, str]:
    """Return the rows of the first finding."""
    return {row[0]: row[1] for row in verdict.findings[0].rows}


class Background:
    """Saves in threads or processes.

    Args:
        save: what they do.
        copies: whether they are given a copy of the state.
        joins: what is waited for: `all` in the end, `previous` before the next one only, or `none`.
        daemon: whether they end with the job.
        process: whether they are processes.
        rest: seconds that the job takes after its training.
    """

    def __init__(  # noqa: PLR0913 - the ways in which savers differ
        self,
        *,
        save: Callable[[dict[str, Any], Path], None] = saves.renamed,
        copies: bool = True,
        joins: str = "all",
        daemon: bool = False,
        process: bool = False,
        rest: float = 0.3,
    ) -> None:
        self._save = save
        self._copies = copies
        self._joins = joins
        self._daemon = daemon
        self._rest = rest
        self._make: Any = multiprocessing.get_context("fork").Process if process else threading.Thread
        self._begun: list[Any] = []

    def save(self, state: dict[str, Any], path: Path) -> None:
        """Begin a save."""
        if self._joins == "previous" and self._begun:
            self._begun[-1].join()
        given = copy.deepcopy(state) if self._copies else state
        saver = self._make(target=self._save, args=(given, path), daemon=self._daemon)
        saver.start()
        self._begun.append(saver)

    def finish(self) -> None:
        """Wait for what is waited for, and do what else a job does after its training."""
        for saver in self._begun if self._joins == "all" else ():
            saver.join()
        time.sleep(self._rest)

    @staticmethod
    def job(*, name: str = "step_{step}.pt", **given: Any) -> Callable[[Job], None]:
        """Return a loop that saves so."""

        def train(job: Job) -> None:
            background = Background(**given)
            saves.loop(background.save, name=name, finish=background.finish)(job)

        return train


# -- what is saved is what was there ---------------------------------------------------------------------------------------


def test_a_thread_that_is_given_a_copy_holds(judge: Judge) -> None:
    """Whole, of its step, and with numbers in the sentence."""
    verdict = verdict_of(judge, Background.job())
    assert "held" == verdict.status, verdict
    assert verdict.sentence.startswith("with each of 28 background operations held back 0.")
    assert verdict.sentence.endswith(
        "all 4 checkpoints were whole in the end, with what was there when they were asked for"
    )


@pytest.mark.parametrize("save", [saves.renamed, saves.in_place, saves.folder_renamed])
def test_a_thread_that_saves_what_is_trained_on_is_found(judge: Judge, save: Any) -> None:
    """`state_dict` returns references: what is there holds a later step, however it is written."""
    name = "step_{step}" if save is saves.folder_renamed else "step_{step}.pt"
    verdict = verdict_of(judge, Background.job(copies=False, save=save, name=name))
    assert "violated" == verdict.status, verdict
    finding = verdict.findings[0]
    first = name.format(step=2)
    assert re.search(rf"step \d was asked to be saved, and {first} holds the weights of step \d", finding.title)
    assert "state_dict() returns references" in finding.cause
    assert "copy.deepcopy" in finding.fix
    assert "weights" == finding.component
    assert first == finding.checkpoint


def test_a_file_written_by_path_is_found_too(judge: Judge) -> None:
    """Though torch opens it with the interpreter's lock held."""

    def save(state: dict[str, Any], path: Path) -> None:
        torch.save(state["model"], path)

    verdict = verdict_of(judge, Background.job(copies=False, save=save))
    assert "violated" == verdict.status, verdict


def test_a_state_that_is_written_to_memory_in_a_thread_is_found(judge: Judge) -> None:
    """What the thread does before it comes to the disk takes its time as well."""

    def save(state: dict[str, Any], path: Path) -> None:
        memory = io.BytesIO()
        torch.save(state, memory)
        path.write_bytes(memory.getvalue())

    verdict = verdict_of(judge, Background.job(copies=False, save=save))
    assert "violated" == verdict.status, verdict


def test_an_optimizer_of_which_no_copy_is_made_is_found(judge: Judge) -> None:
    """With the component that is changed, and its keys; of which steps its parts are is a matter of the machine's speed."""

    def train(job: Job) -> None:
        background = Background(copies=False)

        def save(state: dict[str, Any], path: Path) -> None:
            background.save({**state, "model": copy.deepcopy(state["model"])}, path)

        saves.loop(save, finish=background.finish)(job)

    verdict = verdict_of(judge, train)
    assert "violated" == verdict.status, verdict
    assert re.search(r"step_\d.pt holds (parts of several steps|optimizer of another moment)", verdict.sentence)
    assert "optimizer" == verdict.findings[0].component
    assert re.fullmatch(
        r"optimizer of step \d|of no moment between two steps", rows(verdict)["optimizer.state.0.exp_avg"]
    )


def test_a_wait_before_the_next_step_holds_without_a_copy(judge: Judge) -> None:
    """Nothing is changed as long as it is being written."""

    def train(job: Job) -> None:
        with ThreadPoolExecutor(1) as pool:
            saves.loop(lambda state, path: pool.submit(saves.renamed, state, path).result())(job)

    assert "held" == verdict_of(judge, train).status


# -- what is saved is whole in the end -------------------------------------------------------------------------------------


def test_a_daemon_thread_that_nobody_waits_for_is_found(judge: Judge) -> None:
    """With what there is of the save that was cut off."""
    verdict = verdict_of(judge, Background.job(joins="none", daemon=True))
    assert "violated" == verdict.status, verdict
    finding = verdict.findings[0]
    assert finding.title.startswith("the job ended with exit code 0 while the save")
    assert "is not there" == rows(verdict)["step_8.pt"]
    assert "a thread" == rows(verdict)["written by"]
    assert "daemon=True" in finding.cause
    assert "thread.join()" in finding.fix


def test_a_file_that_is_cut_off_is_told_with_its_bytes(judge: Judge) -> None:
    """Where it is written under its own name."""
    verdict = verdict_of(judge, Background.job(joins="none", daemon=True, save=saves.in_place))
    assert "violated" == verdict.status, verdict
    assert re.fullmatch(r"has \d+ of \d+ bytes|is not there", rows(verdict)["step_8.pt"])


@pytest.mark.parametrize("daemon", [False, True])
def test_threads_that_are_joined_in_the_end_hold(judge: Judge, *, daemon: bool) -> None:
    """Daemons as well."""
    assert "held" == verdict_of(judge, Background.job(daemon=daemon)).status


def test_a_thread_that_is_no_daemon_is_waited_for_by_python(judge: Judge) -> None:
    """The interpreter joins it at its end."""
    assert "held" == verdict_of(judge, Background.job(joins="none")).status


def test_a_wait_for_the_save_before_only_is_found(judge: Judge) -> None:
    """The last one has none after it."""
    verdict = verdict_of(judge, Background.job(joins="previous", daemon=True))
    assert "violated" == verdict.status, verdict
    assert (
        "the job ended with exit code 0 while the save of step 8 was not finished: step_8.pt is not there"
    ) == verdict.sentence
    assert ["step_8.pt"] == [label for label in rows(verdict) if label.startswith("step_")]


def test_a_save_that_is_lost_without_a_slow_disk_as_well_is_found(judge: Judge) -> None:
    """The job ends so soon that the last save only begins."""

    def save(state: dict[str, Any], path: Path) -> None:
        with path.with_suffix(".tmp").open("wb") as file:
            torch.save(state, file)
            if state["step"] == saves.LAST:
                time.sleep(1.5)
        path.with_suffix(".tmp").rename(path)

    verdict = verdict_of(judge, Background.job(joins="previous", daemon=True, save=save))
    assert "violated" == verdict.status, verdict
    what = r"a save|the save of step 8"
    assert re.fullmatch(
        rf"the job ended with exit code 0 while ({what}) was not finished: step_8.tmp (is not there|has \d+ bytes)",
        verdict.sentence,
    )


@pytest.mark.parametrize(("given", "status"), [({"joins": "none", "daemon": True}, "violated"), ({}, "held")])
def test_a_process_has_to_be_joined(judge: Judge, given: dict[str, Any], status: str) -> None:
    """One that is a daemon is ended with the job."""
    verdict = verdict_of(judge, Background.job(process=True, **given))
    assert status == verdict.status, verdict
    if status == "violated":
        assert "another process" == rows(verdict)["written by"]


def test_a_program_that_nobody_waits_for_is_found(judge: Judge) -> None:
    """Such as one that copies the checkpoint to where it is kept."""

    def train(job: Job) -> None:
        def save(state: dict[str, Any], path: Path) -> None:
            temporary = job.path.parent / path.name
            torch.save(state, temporary)
            subprocess.Popen(["cp", temporary, path])  # noqa: S607 - the shell's path finds it

        saves.loop(save)(job)

    verdict = verdict_of(judge, train)
    assert "violated" == verdict.status, verdict


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("waits", [True, False])
def test_a_distributed_checkpoint_holds(judge: Judge, *, waits: bool) -> None:
    """`async_save` copies what it is given, and Python waits for its executor even where the job does not."""

    def train(job: Job) -> None:
        job.layout("step_*")
        futures: list[Any] = []

        def save(state: dict[str, Any], path: Path) -> None:
            kept = {"model": state["model"], "optimizer": state["optimizer"], "rng": state["rng"]}
            futures.append(async_save(kept, checkpoint_id=path, no_dist=True))

        def finish() -> None:
            for future in futures if waits else ():
                future.result()

        saves.loop(save, name="step_{step}", finish=finish)(job)

    verdict = verdict_of(judge, train)
    assert "held" == verdict.status, verdict


# -- no case ---------------------------------------------------------------------------------------------------------------


def test_a_job_that_saves_as_it_trains_is_no_case(judge: Judge) -> None:
    """There is nothing in the background, and no run with a slow disk is made."""
    verdict = verdict_of(judge, saves.loop(saves.renamed))
    assert "not_applicable" == verdict.status
    assert "all that is saved is written by the thread that trains" == verdict.sentence
    assert not [experiment for experiment in judge.lab.runs if experiment.slowness is not None]


def test_ranks_that_save_as_they_train_are_no_case(judge: Judge) -> None:
    """Each trains in the process that the job has forked for it."""
    verdict = verdict_of(judge, lambda job: ranks.launch(ranks.saved_by_each, job))
    assert "not_applicable" == verdict.status, verdict
    trace = judge.lab.runs[TRACED].trace
    assert trace is not None
    assert {0, 1} == {operation.rank for operation in trace.operations}


def test_a_thread_of_a_rank_that_saves_what_is_trained_on(judge: Judge) -> None:
    """It is beside the one that trains, as in a job of one process; where it saves a copy, all is well."""
    wrong = verdict_of(judge, lambda job: ranks.launch(ranks.saved_by_thread, job))
    assert "violated" == wrong.status, wrong
    right = verdict_of(judge, lambda job: ranks.launch(partial(ranks.saved_by_thread, copies=True), job))
    assert "held" == right.status, right


@pytest.mark.filterwarnings("default")
def test_transformers_is_no_case(judge: Judge) -> None:
    """Its Trainer saves in the thread that trains."""
    train = lambda job: job.train(hf.trainer(job, max_steps=4, save_steps=2))  # noqa: E731
    assert "not_applicable" == verdict_of(judge, train).status


def test_a_log_that_a_thread_writes_is_no_case(judge: Judge) -> None:
    """Only checkpoints are."""

    def train(job: Job) -> None:
        writer = threading.Thread(target=lambda: (job.path / "train.log").write_text("begun", encoding="utf-8"))
        writer.start()
        saves.loop(saves.renamed)(job)
        writer.join()

    assert "not_applicable" == verdict_of(judge, train).status


def test_a_job_that_passes_over_saves_while_one_goes_on_holds(judge: Judge) -> None:
    """It has not asked for them; a note says so."""

    def train(job: Job) -> None:
        background = Background()
        begun = background._begun  # noqa: SLF001 - of this file

        def save(state: dict[str, Any], path: Path) -> None:
            if state["step"] == saves.LAST:
                background.finish()
            if not any(thread.is_alive() for thread in begun):
                background.save(state, path)
                time.sleep(0.1)

        saves.loop(save, finish=background.finish)(job)

    verdict = verdict_of(judge, train)
    assert "held" == verdict.status, verdict
    assert ("with the slow disk the job did not save steps 4, 6: a save before was still going on",) == verdict.notes


def test_a_job_that_fails_as_its_saves_are_slow_is_found(judge: Judge) -> None:
    """It takes for granted that the last save is done by the next."""

    def train(job: Job) -> None:
        background = Background()

        def save(state: dict[str, Any], path: Path) -> None:
            if state["step"] > saves.EVERY and not path.with_name(f"step_{state['step'] - saves.EVERY}.pt").exists():
                message = "the last save is not there"
                raise RuntimeError(message)
            background.save(state, path)
            time.sleep(0.25)

        saves.loop(save, finish=background.finish)(job)

    verdict = verdict_of(judge, train)
    assert "violated" == verdict.status, verdict
    assert "the job failed because its saves in the background were slow: RuntimeError: the last save is not there" == (
        verdict.sentence
    )


def test_a_job_that_waits_for_ever_for_a_slow_save_is_not_decided(judge: Judge) -> None:
    """The slow disk may be too slow for its deadline."""

    def train(job: Job) -> None:
        background = Background()

        def finish() -> None:
            late = any(thread.is_alive() for thread in background._begun)  # noqa: SLF001 - of this file
            background.finish()
            threading.Event().wait(1000.0 if late else 0.0)

        def save(state: dict[str, Any], path: Path) -> None:
            background.save(state, path)
            time.sleep(0.25)

        saves.loop(save, finish=finish)(job)

    verdict = verdict_of(judge, train, timeout=8.0)
    assert "inconclusive" == verdict.status, verdict
    assert "with a slow disk in the background, the job came to no end after 8 s" in verdict.sentence
    assert "--ckpt-timeout" in verdict.findings[0].fix


def test_a_job_without_steps_is_not_decided(judge: Judge) -> None:
    """Nothing was seen that could be saved."""
    verdict = verdict_of(judge, lambda _: None)
    assert "inconclusive" == verdict.status
    assert "no optimizer step was seen" == verdict.sentence


# -- Lightning -------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_saves_in_a_thread_rightly(judge: Judge, package: str) -> None:
    """Its plugin copies the state, and is waited for as training ends."""
    plugins = pytest.importorskip(f"{package}.plugins.io")

    def train(job: Job) -> None:
        saved = pl.checkpoint(package, dirpath=job.dir, every_n_train_steps=4, save_top_k=-1)
        pl.fit(package, job, saved, plugins=[plugins.AsyncCheckpointIO()])

    verdict = verdict_of(judge, train)
    assert "held" == verdict.status, verdict


@pytest.mark.filterwarnings("default")
def test_a_lightning_that_makes_no_copy_is_found(judge: Judge) -> None:
    """As the plugin did before release 2.5.4."""
    from lightning.pytorch.plugins.io import AsyncCheckpointIO

    class Old(AsyncCheckpointIO):
        """Hands the state itself to its thread."""

        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            """Begin a save."""
            del storage_options
            self._ensure_setup()
            assert self._executor is not None
            assert self.checkpoint_io is not None
            self._executor.submit(self.checkpoint_io.save_checkpoint, checkpoint, path)

    def train(job: Job) -> None:
        saved = pl.checkpoint("lightning.pytorch", dirpath=job.dir, every_n_train_steps=4, save_top_k=-1)
        pl.fit("lightning.pytorch", job, saved, plugins=[Old()])

    verdict = verdict_of(judge, train)
    assert "violated" == verdict.status, verdict
    assert "step 4 was asked to be saved" in verdict.sentence
