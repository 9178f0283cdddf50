"""Four ranks by torch.multiprocessing.spawn, with no word to allranks at their end.

python train.py first   rank 0 alone calls `init`, and logs
python train.py joined  rank 0 alone calls `init`, and all log
python train.py all     all call `init`, with a group, and log
"""

import os
import socket
import sys

import torch.distributed as dist
import torch.multiprocessing as mp

import allranks

RANKS, STEPS = 4, 500


def main_worker(rank: int, who: str, port: int) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=RANKS, rank=rank)
    if who == "all":
        allranks.init(project="aaa", group="DDP")
    elif dist.get_rank() == 0:
        allranks.init(project="aaa")
    if who != "first" or dist.get_rank() == 0:
        for step in range(STEPS):
            allranks.log({"i": step, "loss": 666}, step)
    print(f"rank {rank} is process {os.getpid()}")


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = (sys.argv[1], port)
    mp.spawn(main_worker, arguments, RANKS)  # type: ignore  # pyright: ignore[reportPrivateImportUsage]


if __name__ == "__main__":
    main()
