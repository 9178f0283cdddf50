"""A training written for TensorBoard: one line is changed, and it logs to a run."""

from __future__ import annotations

import math
import random

# from torch.utils.tensorboard import SummaryWriter
from allranks.integrations.tensorboard import SummaryWriter


def main() -> None:
    for rate in (0.1, 0.2):
        with SummaryWriter(f"runs/rate-{rate}") as writer:
            loss = 1.0
            for step in range(500):
                loss = math.exp(-step * rate / 40) + random.random() * 0.05
                writer.add_scalar("loss/train", loss, step)
                if step % 100 == 0:
                    writer.add_histogram("weights", [random.gauss(0, 1 + step / 500) for _ in range(1000)], step)
            writer.add_text("note", f"with a rate of {rate}")
            writer.add_hparams({"rate": rate}, {"hparam/loss": loss})
    print("see allranks runs")


if __name__ == "__main__":
    main()
