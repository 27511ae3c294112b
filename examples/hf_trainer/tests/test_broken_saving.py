"""Saving that is broken on purpose, to see what a failure says.

Run with: pytest --ckpt-contract tests/test_broken_saving.py. Every test here FAILS. Each breaks one promise in a way
that real repositories have shipped, and none of them raises an error in training: that is why they shipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from train import build_trainer
from transformers import TrainerCallback


def newest_checkpoint(args, state):
    """Name the folder that the Trainer has just written."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


class StopEarly(TrainerCallback):
    """Stops when training is good enough: here, after step 7."""

    def on_step_end(self, args, state, control, **_):
        """Ask the Trainer to stop. It does, without saving: 7 is no multiple of save_steps."""
        control.should_training_stop |= state.global_step >= 7


class SaveDiskSpace(TrainerCallback):
    """Deletes the largest file of each checkpoint, which nobody seemed to miss."""

    def on_save(self, args, state, control, **_):
        """Remove the optimizer's state. A resume that finds none starts a new one and says nothing."""
        (newest_checkpoint(args, state) / "optimizer.pt").unlink()


class PublishCopy(TrainerCallback):
    """Puts a copy of the weights into each checkpoint, but takes the copy only once."""

    copy = None

    def on_save(self, args, state, control, **_):
        """Overwrite the weights just saved with those of the first save."""
        weights = newest_checkpoint(args, state) / "model.safetensors"
        self.copy = self.copy or load_file(weights)
        save_file(self.copy, weights, metadata={"format": "pt"})


@pytest.mark.ckpt_resumable
def test_saving_only_the_model(ckpt_job, tiny_causal_lm, tiny_text):
    """Weights alone resume without an error: with a new optimizer, and at the first learning rate again."""
    # save_only_model=True leaves out the optimizer, the schedule and the random states
    trainer = build_trainer(
        tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=4, save_only_model=True
    )
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_final_step
def test_stopping_early(ckpt_job, tiny_causal_lm, tiny_text):
    """Seven steps are trained, and the newest checkpoint holds the fourth."""
    # the callback stops between the saves at 4 and 8: three steps of work are lost
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=4)
    trainer.add_callback(StopEarly())
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_resumable
def test_losing_the_optimizer(ckpt_job, tiny_causal_lm, tiny_text):
    """A resume without optimizer.pt begins with empty moments: its first update is another one."""
    # the callback deletes optimizer.pt after each save
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=4)
    trainer.add_callback(SaveDiskSpace())
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_count(3)
def test_deleting_too_much(ckpt_job, tiny_causal_lm, tiny_text):
    """Three checkpoints are promised, and the settings keep two."""
    # save_total_limit=2 deletes checkpoint-4 when checkpoint-10 is written
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=4, save_total_limit=2)
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_crash_safe(most=20)
def test_being_killed_in_a_save(ckpt_job, tiny_causal_lm, tiny_text):
    """Killed while it writes a checkpoint, the run does not start again: the search takes the unfinished one."""
    # resume_from_checkpoint=True, which ckpt_job.train passes after a crash, takes the highest number
    ckpt_job.train(build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=6, save_steps=2))


@pytest.mark.ckpt_faithful
def test_saving_stale_weights(ckpt_job, tiny_causal_lm, tiny_text):
    """Three checkpoints with three names hold the weights of step 4."""
    # the callback replaces the weights of each checkpoint by those of the first
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=4)
    trainer.add_callback(PublishCopy())
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)
