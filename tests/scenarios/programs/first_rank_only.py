"""Rank 0 alone has a run; every rank keeps its checkpoints in the run's folder, also those that never call `init`.

python train.py STEPS
"""

import os
import sys
import time
from pathlib import Path

import allranks

rank = int(os.environ["RANK"])
if rank == 0:
    allranks.init(project="aaa", name="test")
checkpoints = os.path.join(allranks.run.dir, "checkpoints")  # noqa: PTH118  (as the script of the report does)
Path(checkpoints).mkdir(exist_ok=True)
os.write(1, f"rank {rank} keeps them in {checkpoints}\n".encode())
returned = os.open(f"returned-{rank}", os.O_WRONLY | os.O_CREAT)
for step in range(int(sys.argv[1])):
    if rank == 0:
        allranks.log({"i": step}, step)
        os.pwrite(returned, (step + 1).to_bytes(8, "little"), 0)
    if step % 20 == 0:
        Path(checkpoints, f"rank-{rank}-step-{step}.ckpt").write_bytes(os.urandom(200_000))
    time.sleep(0.002)
