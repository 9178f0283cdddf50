"""A job that is killed and queued again, with the same id: each life goes on from the checkpoint of the one before.

python train.py hangs   does not get on after step 130, whose checkpoint is that of step 100
python train.py         goes on, to step 200
"""

import sys
import time
from pathlib import Path

import allranks

checkpoint = Path("checkpoint")
first = int(checkpoint.read_text()) + 1 if checkpoint.exists() else 0
run = allranks.init(project="queue", id="job-17")
for step in range(first, 201):
    run.log({"i": step, "loss": 1 / (step + 1)}, step)
    time.sleep(0.005)
    if step % 50 == 0:
        checkpoint.write_text(str(step))
    if "hangs" in sys.argv and step == 130:
        while True:
            time.sleep(0.01)
            if run.status()["acked"] == run.status()["logged"]:
                print("all is stored", flush=True)
                time.sleep(1000)
