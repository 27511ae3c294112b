"""One module a framework behind one protocol; nobody else imports a framework's module by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_ckpt.frameworks.protocol import Framework


def builtin() -> tuple[Framework, ...]:
    """Return the frameworks that this package knows."""
    from pytest_ckpt.frameworks.hf_trainer import HFTrainer  # only when a contract is asked for
    from pytest_ckpt.frameworks.lightning_trainer import LightningTrainer

    return (HFTrainer(), LightningTrainer("lightning.pytorch"), LightningTrainer("pytorch_lightning"))
