"""What a training pays at its start and at its end: the import, `init()`, and `finish()`; in fresh processes."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_most
from benchmarks.processes import ROOT, environment, run_worker, running_collector, temporary_home
from benchmarks.samples import spread

_DEADLINE_S = 60.0


def measure(options: Options) -> Measured:
    """Medians over processes; the import as the difference to an interpreter that does nothing, in turns with it."""
    count = options.pick(20, 5)
    with temporary_home() as home, running_collector(home):
        bare, importing = [], []
        for _ in range(count):
            bare.append(_run("pass", home))
            importing.append(_run("import allranks", home))
        answers = [run_worker("start_stop", {}, home=home, timeout_s=60) for _ in range(count)]
        told = median(_import_time(home) for _ in range(min(count, 5)))
    difference = median(importing) - median(bare)
    init, finish = (spread([answer[name] for answer in answers], 1e3) for name in ("init", "finish"))
    figures = [
        Figure("import allranks", 1e3 * difference, "ms", at_most(80), note=f"-X importtime {told:.0f} ms"),
        Figure("init() with a collector up", init.median, "ms", at_most(20), note=f"slowest {init.max:.1f} ms"),
        Figure("finish() with all acked", finish.median, "ms", at_most(50), note=f"slowest {finish.max:.1f} ms"),
    ]
    details: dict[str, Any] = {"bare_s": bare, "importing_s": importing, "processes": answers, "importtime_ms": told}
    return Measured(figures, details)


def _run(program: str, home: Path) -> float:
    """Seconds that a fresh interpreter takes for `program`, from its start to its end."""
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", program], env=environment(home), cwd=ROOT) as process:
        # Not `wait(timeout=…)`, which looks again after ever longer sleeps, of 50 ms in the end.
        fd = os.pidfd_open(process.pid)
        ended = select.select([fd], [], [], _DEADLINE_S)[0]
        taken = time.perf_counter() - begun
        os.close(fd)
        if not ended:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{program!r} ended with {process.returncode}")
    return taken


def _import_time(home: Path) -> float:
    """Milliseconds of `import allranks` with all that it imports, as the interpreter counts them."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import allranks"],
        check=True,
        timeout=60,
        env=environment(home),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    # import time: self [us] | cumulative | imported package
    last = [line for line in ran.stderr.splitlines() if line.rpartition("|")[2].strip() == "allranks"][-1]
    return int(last.split("|")[1]) / 1e3
