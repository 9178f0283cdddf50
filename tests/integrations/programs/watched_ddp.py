"""DistributedDataParallel with accumulated gradients, watched; each rank writes down what its own gradients were."""

from __future__ import annotations

import copy
import json
import os
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import allranks

STEPS, MICRO_BATCHES = 3, 4


def figures(tensor: torch.Tensor) -> dict[str, float]:
    return {"min": tensor.min().item(), "max": tensor.max().item(), "mean": tensor.double().mean().item()}


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rank = dist.get_rank()
    run = allranks.init(project="watched")
    inner = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    model = DistributedDataParallel(inner, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, "all", log_freq=MICRO_BATCHES)
    generator = torch.Generator().manual_seed(rank)
    told: list[dict[str, Any]] = []
    for step in range(STEPS):
        run.log({"step": step}, step=100 * step)
        alone = copy.deepcopy(inner)
        alone.zero_grad()
        optimizer.zero_grad()
        parameters = {name: figures(parameter.detach()) for name, parameter in inner.named_parameters()}
        for nth in range(MICRO_BATCHES):
            inputs = torch.randn(16, 4, generator=generator)
            alone(inputs).square().mean().backward()
            with model.no_sync() if nth < MICRO_BATCHES - 1 else nullcontext():
                model(inputs).square().mean().backward()
        gradients: dict[str, Any] = {}
        for (name, mine), averaged in zip(alone.named_parameters(), inner.parameters(), strict=True):
            assert mine.grad is not None
            gradients[name] = figures(mine.grad)
            mean = mine.grad.clone()
            dist.all_reduce(mean)
            torch.testing.assert_close(averaged.grad, mean / dist.get_world_size())
        told.append({"gradients": gradients, "parameters": parameters})
        optimizer.step()
    with open(f"told-{rank}.json", "w") as file:
        json.dump(told, file)
    run.finish()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
