"""Data-parallel PyTorch: every rank calls `init` and `log` alike, and all find the same run.

torchrun --nproc-per-node 4 examples/ddp.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import allranks

STEPS = 500


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with allranks.init(project="ddp", config={"lr": 0.05, "steps": STEPS}) as run:
        model = DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=run.config.lr)
        generator = torch.Generator().manual_seed(run.rank)
        for step in range(STEPS):
            inputs = torch.randn(64, 16, generator=generator)
            targets = inputs.sin().sum(dim=1, keepdim=True)
            loss = nn.functional.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            run.log({"train/loss": loss, "train/target_mean": targets.mean()}, step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
