"""Two launches, one after the other, at the same address and port.

python train.py by-hand  as a shell script starts its ranks
python train.py spawn    by torch.multiprocessing.spawn in one program
"""

import os
import subprocess
import sys
from typing import Any

RANKS, STEPS = 2, 300


def train() -> None:
    import allranks

    run = allranks.init(project="neighbours")
    for step in range(STEPS):
        run.log({"i": step}, step)
    os.write(1, f"{run.id} {run.rank} {run.world_size}\n".encode())


def worker(rank: int, port: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=RANKS, rank=rank)
    train()


def by_hand(port: str) -> None:
    places = [
        {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in range(RANKS)
    ]
    ranks = [subprocess.Popen([sys.executable, __file__], env={**os.environ, **place}) for place in places]
    for rank in ranks:
        if rank.wait():
            sys.exit(1)


def spawn(port: str) -> None:
    import torch.multiprocessing

    mp: Any = torch.multiprocessing
    mp.spawn(worker, args=(port,), nprocs=RANKS)


if __name__ == "__main__":
    if "RANK" in os.environ:
        train()
    else:
        for _ in range(2):
            {"by-hand": by_hand, "spawn": spawn}[sys.argv[1]](sys.argv[2])
