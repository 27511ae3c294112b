"""The contracts of Acme's trainer: a test of a training repository, as everywhere."""

from __future__ import annotations

import pytest
import torch
from acme_train import Trainer


@pytest.mark.ckpt_contract  # the default set, ckpt_model_card among it
@pytest.mark.parametrize("keep", [None, 2])
def test_training(ckpt_job, keep):
    """All is saved, what is kept can be resumed, and says what it is."""
    seeded = torch.Generator().manual_seed(0)  # a resume is built in a process with other seeds
    batches = [torch.randn(2, 8, 4, generator=seeded) for _ in range(5)]
    trainer = Trainer(torch.nn.Linear(4, 4), batches, folder=ckpt_job.dir, steps=7, save_every=2, keep=keep)
    ckpt_job.train(trainer)
