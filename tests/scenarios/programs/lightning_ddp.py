"""Lightning with `strategy="ddp"` on two processes; each names the folder of checkpoints, in the run's, at the top.

python train.py STEPS              the logger tells the project
python train.py STEPS first        rank 0 alone has called `init`, and the logger is told nothing
python train.py STEPS raising      rank 1 raises in the middle, while rank 0 waits for its gradients
python train.py STEPS spawn        with `strategy="ddp_spawn"`, or `fork`

Each rank notes in the file `returned-RANK` how many events it has logged at the least.
"""

import os
import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

import allranks
from allranks.integrations.lightning import AllranksLogger

STEPS = int(sys.argv[1])
HOW = sys.argv[2] if len(sys.argv) > 2 else ""


class Classifier(LightningModule):
    def __init__(self, lr: float = 0.1, hidden: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))

    def on_fit_start(self) -> None:
        self.returned = os.open(f"returned-{self.global_rank}", os.O_RDWR | os.O_CREAT, 0o600)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        # Lightning logs at the end of a batch: those of all before this one.
        os.pwrite(self.returned, b"%8d" % batch_idx, 0)
        if HOW == "raising" and self.global_rank == 1 and batch_idx == STEPS // 2:
            raise RuntimeError("rank 1 has had enough")
        inputs, targets = batch
        loss = torch.nn.functional.cross_entropy(self.layers(inputs), targets)
        self.log("loss", loss)
        self.log("i", float(batch_idx))
        self.log("of_rank", float(self.global_rank))
        if self.global_rank == 0 and batch_idx == 20:
            print("training", flush=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    seed_everything(1)
    inputs = torch.randn(4 * STEPS, 4)
    data = DataLoader(TensorDataset(inputs, (inputs.sum(dim=1) > 0).long()), batch_size=2)
    model = Classifier()

    if HOW == "first":
        if os.environ.get("LOCAL_RANK", "0") == "0":
            allranks.init(project="aaa", name="test")
        pl_logger = AllranksLogger(log_model=True)
    else:
        pl_logger = AllranksLogger(project="aaa", name="test", log_model=True)
    pl_logger.watch(model, log="all", log_freq=10)

    callbacks: list[Callback] = [
        ModelCheckpoint(
            dirpath=os.path.join(allranks.run.dir, "checkpoints"),  # noqa: PTH118  (as people write it)
            every_n_train_steps=10,
            save_top_k=-1,
        ),
    ]

    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        logger=pl_logger,
        strategy=f"ddp_{HOW}" if HOW in ("spawn", "fork") else "ddp",
        callbacks=callbacks,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    print("ended", flush=True)
