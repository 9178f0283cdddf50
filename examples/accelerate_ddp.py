"""Accelerate with several processes, each of which logs its own loss; no process waits for another in order to log.

torchrun --nproc-per-node 2 examples/accelerate_ddp.py
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from allranks.integrations.accelerate import AllranksTracker, log_from_every_process

EPOCHS, BATCH = 10, 32


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    # Without log_from_every_process the main process alone would be heard.
    accelerator = log_from_every_process(Accelerator(cpu=True, log_with=AllranksTracker(project="accelerate")))
    accelerator.init_trackers("accelerate", config={"lr": 0.01, "epochs": EPOCHS})
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
    data = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    step = 0
    for epoch in range(EPOCHS):
        for inputs, targets in data:
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            accuracy = (outputs.argmax(dim=1) == targets).float().mean()
            accelerator.log({"train/loss": loss, "train/accuracy": accuracy, "epoch": epoch}, step=step)
            step += 1
    accelerator.end_training()


if __name__ == "__main__":
    main()
