"""The trainer of a company: small, with a layout of its own. It knows nothing of pytest-ckpt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

CARD = "# A model\n\nTrained by acme_train to step {step}.\n"


class Trainer:
    """Trains a network and saves all that is needed to go on: `ckpt/step00004/` and so on, below `folder`.

    Args:
        model: the network.
        batches: pairs of inputs and targets, taken in turn.
        folder: where to save.
        steps: the last step.
        save_every: saves after every so many steps.
        save_last: saves after the last step, too.
        keep: how many checkpoints stay, the newest ones; None for all.
        card: the text of the README.md in each checkpoint.
    """

    def __init__(  # noqa: PLR0913 - settings, by keyword
        self, model, batches, *, folder, steps, save_every, save_last=True, keep=None, card=CARD
    ):
        self.model = model
        self.batches = batches
        self.folder = Path(folder)
        self.steps = steps
        self.save_every = save_every
        self.save_last = save_last
        self.keep = keep
        self.card = card
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)

    def fit(self, resume=None):
        """Train to the last step, from the checkpoint `resume` on if there is one."""
        first = self.load(Path(resume)) if resume else 0
        for step in range(first + 1, self.steps + 1):
            self.train_step(step)
            if step % self.save_every == 0 or (self.save_last and step == self.steps):
                self.save(step)

    def train_step(self, step):
        """Take one step."""
        inputs, targets = self.batches[step % len(self.batches)]
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.model(inputs), targets).backward()
        self.optimizer.step()

    def save(self, step):
        """Write a checkpoint, then delete those that are too many."""
        folder = self.folder / "ckpt" / f"step{step:05}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(self.model.state_dict(), folder / "model.pt")
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        (folder / "progress.json").write_text(json.dumps({"step": step}))
        if self.card:
            (folder / "README.md").write_text(self.card.format(step=step))
        saved = sorted(folder.parent.iterdir())
        for old in saved[: -self.keep] if self.keep else ():
            shutil.rmtree(old)

    def load(self, folder):
        """Read a checkpoint and return its step; without an optimizer.pt, start with a new optimizer."""
        self.model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
        if (folder / "optimizer.pt").exists():
            self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        return json.loads((folder / "progress.json").read_text())["step"]
