"""Histograms of a model's gradients and parameters, every 50 backward passes; the steps between cost nothing.

python examples/watch.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn

import allranks

STEPS, BATCH = 400, 64


def main() -> None:
    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    with allranks.init(project="watch", config={"lr": 0.2, "steps": STEPS}) as run:
        run.watch(model, log="all", log_freq=50)
        for step in range(STEPS):
            chosen = torch.randint(0, len(images), (BATCH,))
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            run.log({"train/loss": loss}, step)
        accuracy = (model(images).argmax(dim=1) == labels).float().mean()
        run.summary["accuracy"] = accuracy.item()
        print(f"accuracy {accuracy:.3f}; gradients and parameters are in the run {run.id}")


if __name__ == "__main__":
    main()
