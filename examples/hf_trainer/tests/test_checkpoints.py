"""What this repository promises of its checkpoints. Run with: pytest --ckpt-contract.

Each test is one training job; each mark is one promise about what the job saves, and becomes one test of its own.
The job runs the repository's own `build_trainer`, on a model and data small enough for a CPU.
"""

from __future__ import annotations

import pytest
from train import build_trainer


@pytest.mark.ckpt_final_step  # the last optimizer step is on disk
@pytest.mark.ckpt_count(3)  # three checkpoints remain: 4, 8 and the last, 10
@pytest.mark.ckpt_resumable  # training on from any of them equals never having stopped
@pytest.mark.ckpt_faithful  # their weights are the weights that were in memory at that step
def test_a_run_that_ends_between_two_saves(ckpt_job, tiny_causal_lm, tiny_text):
    """The run's 10 steps are no multiple of the save interval: the last step needs a save of its own."""
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=4)
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_final_step
@pytest.mark.ckpt_count(2)  # the limit leaves the two newest: 6 and 8
def test_a_run_that_keeps_its_two_newest_checkpoints(ckpt_job, tiny_causal_lm, tiny_text):
    """Rotation deletes the oldest checkpoints, never the newest."""
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=8, save_steps=2, save_total_limit=2)
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_contract  # every contract of the default set that can be checked here
def test_the_default_set(ckpt_job, tiny_causal_lm, tiny_text):
    """One mark stands for the contracts that nearly every training run should keep."""
    trainer = build_trainer(tiny_causal_lm(), tiny_text(), ckpt_job.dir, max_steps=10, save_steps=5)
    trainer.train(resume_from_checkpoint=ckpt_job.resume_from)


@pytest.mark.ckpt_final_step
@pytest.mark.ckpt_aligned  # the interval divides the run: neither its end nor a crash loses more than 125 steps
def test_the_real_schedule(ckpt_job, tiny_causal_lm, tiny_text):
    """The real run of 750 steps, in a second: `rehearse` runs the Trainer's own loop and leaves out what only computes."""
    samples = tiny_text(1000)  # as many as the real data set has
    trainer = build_trainer(tiny_causal_lm(), samples, ckpt_job.dir, num_train_epochs=3, save_steps=125)
    ckpt_job.rehearse(trainer)
