"""Starts a tee and prints through it: how long it takes until it reads, and the most memory that it ever had."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from tests.support import processes

from allranks._tee import TeeProcess, library_path
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.tee.limits import Limits
from allranks_bus.tee.spec import CLOSED, READY, STDOUT, Spec
from benchmarks.workers.lines import answer, arguments


def main() -> None:
    told = arguments()
    home = Path(os.environ["ALLRANKS_HOME"])
    source, printing = os.pipe()
    original = os.open(os.devnull, os.O_WRONLY)
    identity = {"run": "tee", "project": "bench", "launch": "1", "rank": 0, "world_size": 1, "host": "h", "pid": 1}
    spec = Spec(
        root=str(home / "spools"),
        name=os.urandom(16),
        cap_bytes=2**30,
        limits=Limits(),
        door=os.urandom(16).hex(),
        streams=(STDOUT,),
        modes={},
        behind={},
        destination="offline",
        run="tee",
        launch="1",
        path=library_path(),
        opening=events.pack(Kind.OPEN, time.time_ns(), identity),
    )
    begun = time.perf_counter()
    tee = TeeProcess(spec, {STDOUT: source}, {STDOUT: original}, os.environ)
    spawned = time.perf_counter()
    _await(tee, READY)
    ready = time.perf_counter()
    (pid,) = [pid for pid in processes.with_home(home) if "tee.program" in processes.command_line(pid)]
    at_first = processes.resident_bytes(pid)
    line = b"x" * (told["line_bytes"] - 1) + b"\n"
    for _ in range(told["bytes"] // len(line)):
        os.write(printing, line)
    most = _most_resident_bytes(pid)
    os.close(printing)
    _await(tee, CLOSED)
    tee.close()
    answer({"spawn": spawned - begun, "ready": ready - begun, "at_first_bytes": at_first, "most_bytes": most})


def _await(tee: TeeProcess, word: bytes) -> None:
    while word not in (words := tee.listen()):
        if not words:
            raise SystemExit("the tee has ended")


def _most_resident_bytes(pid: int) -> int:
    """The peak of a process's resident memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise SystemExit("the kernel does not tell the peak of a process's memory")
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
