"""Lightning on several processes: every rank logs, and the checkpoints in the run's folder are stored.

python examples/lightning_ddp.py
"""
# ruff: noqa: ARG002  (the signatures are Lightning's)

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from allranks.integrations.lightning import AllranksLogger

RANKS, EPOCHS = 2, 5


class Regressor(LightningModule):
    def __init__(self, lr: float = 0.05, hidden: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(16, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        # Of this rank's own batch; sync_dist=True would make it the mean of all.
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), sync_dist=True)

    def loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(self.layers(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


def data(seed: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    inputs = torch.randn(4096, 16, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(inputs, inputs.sin().sum(dim=1, keepdim=True)), batch_size=64)


def main() -> None:
    seed_everything(0)
    model = Regressor()
    # Lightning runs this script once for each rank: all find the same run, and the same folder.
    logger = AllranksLogger(project="lightning", config={"epochs": EPOCHS})
    logger.watch(model, log="all", log_freq=50)
    checkpoint = ModelCheckpoint(dirpath=Path(logger.save_dir, "checkpoints"), monitor="val/loss", save_last=True)
    trainer = Trainer(
        accelerator="cpu",
        devices=RANKS,
        strategy="ddp",
        max_epochs=EPOCHS,
        logger=logger,
        callbacks=[checkpoint],
        log_every_n_steps=1,
    )
    trainer.fit(model, data(1), data(2))


if __name__ == "__main__":
    main()
