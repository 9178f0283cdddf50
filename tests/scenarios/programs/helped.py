"""Logs, prints and writes files until the file `stop` appears."""

import itertools
import time
from pathlib import Path

import allranks

run = allranks.init(project="neighbours")
for step in itertools.count():
    run.log({"i": step}, step)
    if step % 10 == 0:
        print(f"line {step}", flush=True)
    if step % 200 == 0:
        Path(run.dir, f"model-{step}.bin").write_bytes(step.to_bytes(8, "big") * 50_000)
        if Path("stop").exists():
            break
    time.sleep(0.001)
