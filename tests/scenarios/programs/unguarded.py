"""Lightning on one device, in a script without `if __name__ == "__main__"`.

python train.py METHOD           with this start method of multiprocessing set for all
python train.py METHOD workers   and with two workers that load data: they run all but the training again
"""

import multiprocessing
import sys

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset

import allranks
from allranks.integrations.lightning import AllranksLogger

METHOD, WORKERS = sys.argv[1], 2 * ("workers" in sys.argv)

print(f"main runs as {__name__}", flush=True)
multiprocessing.set_start_method(METHOD, force=True)


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        inputs, targets = batch
        loss = torch.nn.functional.cross_entropy(self.layer(inputs), targets)
        self.log_dict({"loss": loss, "i": float(self.global_step)})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


if WORKERS:
    allranks.init(project="aaa", name="test", config={"workers": WORKERS})
pl_logger = AllranksLogger(project="aaa", name="test")
seed_everything(1)

# Without this a worker, which runs it all again, would start workers of its own, and Python refuses that.
if multiprocessing.current_process().name == "MainProcess":
    inputs = torch.randn(32, 4)
    data = DataLoader(
        TensorDataset(inputs, (inputs.sum(dim=1) > 0).long()),
        batch_size=4,
        num_workers=WORKERS,
        multiprocessing_context=METHOD if WORKERS else None,
        persistent_workers=bool(WORKERS),
    )
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        logger=pl_logger,
        enable_checkpointing=False,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), data)
    # They are numbered from 1, whoever makes them.
    made = int(multiprocessing.Process().name.split("-")[-1]) - 1
    print(f"processes of multiprocessing: {made}", flush=True)
