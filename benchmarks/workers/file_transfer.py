"""A training that leaves a checkpoint in its run's directory, after a small file, and finishes once it is stored."""

from __future__ import annotations

import os
import time
from pathlib import Path

import allranks
from benchmarks.workers.lines import answer, arguments, await_word


def main() -> None:
    told = arguments()
    run = allranks.init(project="bench")
    run.log({"loss": 1.0})
    folder = Path(run.dir)
    (folder / "config.json").write_text("{}")
    answer({"ready": True, "run": run.id})
    await_word()
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on: proc(5)
    begun = time.time()
    os.link(told["path"], folder / "checkpoint.pt")
    run.finish(timeout=told["limit_s"])
    answer({"begun": begun, "stored": time.time(), "extra_bytes": _resident_bytes("VmHWM") - before})


def _resident_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
