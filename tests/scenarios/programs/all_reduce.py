"""A rank is killed while the other one waits for it in an all_reduce."""

import os
import signal

import torch
import torch.distributed as dist

import allranks

dist.init_process_group("gloo")
rank = dist.get_rank()
allranks.init(project="neighbours")
for step in range(200):
    loss = torch.ones(1)
    dist.all_reduce(loss)
    allranks.log({"i": step, "loss": float(loss)}, step)
if rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
dist.all_reduce(torch.ones(1))
