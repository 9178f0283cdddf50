"""A script written for wandb: one import is changed. What has no counterpart says so in one line."""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

# import wandb
import allranks.compat.wandb as wandb


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()

    with wandb.init(project="from-wandb", entity="my-team", config=args, tags=["example"]) as run:
        wandb.define_metric("val/*", step_metric="epoch")
        best, loss = 0.0, 1.0
        for epoch in range(wandb.config.epochs):
            for batch in range(100):
                loss = math.exp(-(epoch + batch / 100) * args.lr * 5) + random.random() * 0.02
                wandb.log({"train/loss": loss, "epoch": epoch})
            accuracy = 1 - loss / 1.1
            gradients = wandb.Histogram([random.gauss(0, loss) for _ in range(1000)])
            wandb.log(
                {"val/accuracy": accuracy, "gradients": gradients, "sample": wandb.Image([[0.0]])}, commit=False
            )
            if accuracy > best:
                best = accuracy
                run.summary["best_accuracy"] = best
                (Path(run.dir) / "best.txt").write_text(f"epoch {epoch}\n")
                wandb.save(str(Path(run.dir) / "best.txt"))
        wandb.alert("Trained", f"accuracy {best:.2f}", level=wandb.AlertLevel.INFO)
    print(f"see {run.url or 'allranks runs'}")


if __name__ == "__main__":
    main()
