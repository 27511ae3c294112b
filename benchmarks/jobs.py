"""The same tiny language model in each framework: ten steps, saved at 4, 8 and 10, resumed where asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # noqa: F401 - the first step of every optimizer imports it

_STEPS, _EVERY, _BATCH = 10, 4, 4


def transformers(folder: str, resume_from: str | None) -> None:
    """Train a language model by the Trainer."""
    from transformers import Trainer, TrainingArguments

    from pytest_ckpt import tiny

    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=_STEPS,
        save_steps=_EVERY,
        per_device_train_batch_size=_BATCH,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(tiny.causal_lm(), arguments, train_dataset=tiny.text()).train(resume_from_checkpoint=resume_from)


def lightning(folder: str, resume_from: str | None) -> None:
    """Fit the same model; an epoch has two steps, so that each save lies at the end of one."""
    import lightning.pytorch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader

    from pytest_ckpt import tiny

    class LanguageModel(lightning.pytorch.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny.causal_lm()

        def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
            return self.net(**batch).loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    torch.manual_seed(0)

    class SaveLast(lightning.pytorch.Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ANN401 - of any class
            trainer.save_checkpoint(f"{folder}/final-step={trainer.global_step}.ckpt")
            del pl_module

    saving = ModelCheckpoint(folder, every_n_train_steps=_EVERY, save_top_k=-1), SaveLast()
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.pytorch.Trainer(
        default_root_dir=folder, max_epochs=_STEPS // 2, accelerator="cpu", callbacks=list(saving), **quiet
    )
    trainer.fit(LanguageModel(), DataLoader(tiny.text(2 * _BATCH), batch_size=_BATCH), ckpt_path=resume_from)


def plain(folder: str, resume_from: str | None) -> None:
    """Train the same model by hand."""
    from torch.utils.data import default_collate

    from pytest_ckpt import tiny

    torch.manual_seed(0)
    model, texts = tiny.causal_lm(), tiny.text()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
    start = 0
    if resume_from is not None:
        saved = torch.load(resume_from)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        start = saved["step"]
    for step in range(start + 1, _STEPS + 1):
        batch = [texts[(step * _BATCH + place) % len(texts)] for place in range(_BATCH)]
        model(**default_collate(batch)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % _EVERY == 0 or step == _STEPS:
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({**state, "step": step}, Path(folder) / f"step_{step}.pt")
