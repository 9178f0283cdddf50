"""Two epochs of Lightning on one process with the bar of tqdm, then with the bar that it takes by itself."""

import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch.utils.data import DataLoader, TensorDataset

import allranks
from allranks.integrations.lightning import AllranksLogger


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = self.layer(batch[0]).pow(2).mean()
        self.log("loss", loss, prog_bar=True)
        if batch_idx == 3:
            self.print(f"in epoch {self.current_epoch}")
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.log("seen", self.layer(batch[0]).mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


warnings.simplefilter("ignore")
data = DataLoader(TensorDataset(torch.randn(16, 4)), batch_size=2)
allranks.init(project="boring")
choices: tuple[list[Callback], ...] = ([TQDMProgressBar()], [])
for callbacks in choices:
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=AllranksLogger(),
        log_every_n_steps=1,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), data, data)
    print("fitted")
