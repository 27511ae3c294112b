"""Trains a small byte-level language model on the text of a folder, and saves checkpoints on the way.

    python train.py --output-dir out --max-steps 40 --save-steps 8
    python train.py --output-dir out --max-steps 40 --save-steps 8 --resume

`build_trainer` is what tests/test_checkpoints.py calls: the tests run this repository's own training code, not a copy.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

SEED = 17
BLOCK = 64
HERE = Path(__file__).resolve().parent


class ByteDataset(Dataset[dict[str, torch.Tensor]]):
    """Blocks of text, one token a byte: no tokenizer to download."""

    def __init__(self, text: str, block: int = BLOCK) -> None:
        data = torch.tensor(list(text.encode()), dtype=torch.long)
        self.blocks = data[: len(data) // block * block].view(-1, block)

    def __len__(self) -> int:
        """Count the blocks."""
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one block as the model wants it; the model shifts the labels itself."""
        block = self.blocks[index]
        return {"input_ids": block, "attention_mask": torch.ones_like(block), "labels": block.clone()}


def build_model() -> LlamaForCausalLM:
    """Make a fresh model of about 100,000 parameters, the same at every call."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=BLOCK,
        attention_dropout=0.1,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def build_trainer(
    model: torch.nn.Module,
    dataset: Dataset[dict[str, torch.Tensor]],
    output_dir: str | Path,
    *,
    trainer_class: type[Trainer] = Trainer,
    **arguments: Any,
) -> Trainer:
    """Set up training as this repository does it; `arguments` override single settings of it."""
    settings = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "logging_steps": 4,
        "save_strategy": "steps",
        "save_steps": 8,
        "seed": SEED,
        "data_seed": SEED,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "disable_tqdm": True,
        "report_to": [],
    }
    training_args = TrainingArguments(output_dir=str(output_dir), **{**settings, **arguments})
    return trainer_class(model=model, args=training_args, train_dataset=dataset)


def main() -> None:
    """Train on the Python files of this folder; with --resume, go on from the newest checkpoint."""
    parser = argparse.ArgumentParser(description="Train a small byte-level language model on this folder's own source.")
    parser.add_argument("--output-dir", type=Path, default=Path("out"))
    parser.add_argument("--max-steps", type=int, default=40)
    parser.add_argument("--save-steps", type=int, default=8)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    options = parser.parse_args()

    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(HERE.rglob("*.py")))
    trainer = build_trainer(
        build_model(),
        ByteDataset(text),
        options.output_dir,
        max_steps=options.max_steps,
        save_steps=options.save_steps,
    )
    checkpoint = None
    if options.resume:
        checkpoint = get_last_checkpoint(str(options.output_dir))
        if checkpoint is None:
            parser.error(f"--resume: there is no checkpoint in {options.output_dir}")
    trainer.train(resume_from_checkpoint=checkpoint)


if __name__ == "__main__":
    main()
