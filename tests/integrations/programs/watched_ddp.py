"""Modules on several ranks, replicated and sharded, are watched; each rank writes down what its gradients were."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import allranks

STEPS, MICRO_BATCHES = 3, 4
SHARDED_STEP = 1000


class Told:
    """What the histograms of this rank must say."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, step: int, key: str, tensor: torch.Tensor) -> None:
        figures = {"min": tensor.min().item(), "max": tensor.max().item(), "mean": tensor.double().mean().item()}
        self.rows.append({"step": step, "key": key, "figures": figures | {"count": tensor.numel()}})


def replicated(run: allranks.Run, told: Told) -> None:
    """Accumulated gradients under DistributedDataParallel, which must average them as ever."""
    inner = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    model = DistributedDataParallel(inner, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.watch(model, "all", log_freq=MICRO_BATCHES)
    generator = torch.Generator().manual_seed(run.rank)
    for step in range(0, 100 * STEPS, 100):
        run.log({"step": step}, step)
        alone = copy.deepcopy(inner)
        alone.zero_grad()
        optimizer.zero_grad()
        for name, parameter in inner.named_parameters():
            told.add(step, f"parameters/{name}", parameter.detach())
        for nth in range(MICRO_BATCHES):
            inputs = torch.randn(16, 4, generator=generator)
            alone(inputs).square().mean().backward()
            with model.no_sync() if nth < MICRO_BATCHES - 1 else nullcontext():
                model(inputs).square().mean().backward()
        for (name, mine), averaged in zip(alone.named_parameters(), inner.parameters(), strict=True):
            assert mine.grad is not None
            told.add(step, f"gradients/{name}", mine.grad)
            mean = mine.grad.clone()
            dist.all_reduce(mean)
            torch.testing.assert_close(averaged.grad, mean / run.world_size)
        optimizer.step()
    run.unwatch(model)


def sharded(run: allranks.Run, told: Told) -> None:
    """A module that is spread over the ranks; its last parameter has a single element, which one rank holds."""
    model: Any = nn.Sequential(nn.Linear(4, 1))
    fully_shard(model, mesh=init_device_mesh("cpu", (run.world_size,)))
    run.watch(model, log_freq=1)
    run.log({"step": SHARDED_STEP}, SHARDED_STEP)
    model(torch.ones(2, 4)).sum().backward()
    for name, parameter in model.named_parameters():
        mine = parameter.grad.to_local()
        if mine.numel():
            told.add(SHARDED_STEP, f"gradients/{name}", mine)


def main() -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    told = Told()
    with allranks.init(project="watched") as run:
        replicated(run, told)
        sharded(run, told)
    with open(f"told-{run.rank}.json", "w") as file:
        json.dump(told.rows, file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
