"""Accelerate with as many processes as it is started with; each logs what is its own."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from allranks.integrations.accelerate import AllranksTracker, log_from_every_process


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tracker = AllranksTracker(project="own")
    accelerator = log_from_every_process(Accelerator(cpu=True, log_with=tracker))
    accelerator.init_trackers("accelerated", config={"lr": 0.1, "layers": {"first": 4}})
    model = nn.Linear(4, 1)
    data = TensorDataset(torch.arange(32.0).reshape(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    prepared = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=2))
    model, optimizer, batches = prepared
    for step, (batch,) in enumerate(batches):
        loss = model(batch).tanh().mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"loss": loss, "first": batch[0, 0], "process": accelerator.process_index}, step=10 * step)
    assert accelerator.get_tracker("allranks", unwrap=True).rank == accelerator.process_index
    accelerator.end_training()


if __name__ == "__main__":
    main()
