"""`init` in the parent; the run, its configuration, and a namespace of both are handed to the processes that train.

python train.py torch       by torch.multiprocessing.spawn, with gloo
python train.py spawn       by multiprocessing
python train.py forkserver  by a fork server that had been started before `init`
"""

import argparse
import multiprocessing
import os
import socket
import sys
from typing import Any

import allranks

RANKS, STEPS = 2, 300


def train(rank: int, args: argparse.Namespace, run: Any, config: Any) -> None:
    assert config["lr"] == config.lr == args.config["lr"] == args.config.lr == run.config.lr == 0.1
    assert config.net == {"width": 3}
    assert args.run.dir == run.dir
    for step in range(STEPS):
        (run, args.run, allranks)[step % 3].log({"i": step}, step)
    print(f"rank {rank} is process {os.getpid()}")


def train_with_gloo(rank: int, args: argparse.Namespace, run: Any, config: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", world_size=RANKS, rank=rank)
    train(rank, args, run, config)


def nothing() -> None:
    """The fork server is started by its first process."""


def main() -> None:
    method = sys.argv[1]
    context: Any = None if method == "torch" else multiprocessing.get_context(method)
    if method == "forkserver":
        early = context.Process(target=nothing)
        early.start()
        early.join()
    run = allranks.init(project="w2v_did", config={"lr": 0.1, "net": {"width": 3}})
    args = argparse.Namespace(gpus=RANKS, run=run, config=allranks.config)
    if context is None:
        import torch.multiprocessing as mp

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(probe.getsockname()[1]))
        mp.spawn(train_with_gloo, (args, run, run.config), RANKS)  # type: ignore  # pyright: ignore[reportPrivateImportUsage]
        return
    children = [context.Process(target=train, args=(rank, args, run, run.config)) for rank in range(RANKS)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    sys.exit(max(child.exitcode for child in children))


if __name__ == "__main__":
    main()
