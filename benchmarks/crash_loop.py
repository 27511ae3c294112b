"""A loop that keeps one file, as a program: overwritten in place, or with `--atomic` replaced when the new one is whole."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch


def train(out: Path, *, atomic: bool, steps: int = 30, every: int = 5) -> None:
    """Train, and go on from what is there."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    last, done = out / "last.pt", 0
    if last.exists():
        saved = torch.load(last)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["step"]
    sys.stdout.write(f"resumed from step {done}\n")
    for step in range(done + 1, steps + 1):
        batch = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (model(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        if step % every == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, out / "new.pt" if atomic else last)
            if atomic:
                (out / "new.pt").replace(last)
    torch.save(model.state_dict(), out / "final.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--atomic", action="store_true")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)  # noqa: PTH103 - as programs do
    train(arguments.out, atomic=arguments.atomic)
