"""Appends to a spool whose files cannot grow beyond a limit, then lifts the limit and goes on.

Arguments: the root, the writer's name in hex, the limit in bytes. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from allranks_bus.spool import SpoolWriter


def main() -> None:
    """RLIMIT_FSIZE cuts a write short, and then fails it: what a full disk does, for everybody and at no cost."""
    sys.dont_write_bytecode = True  # a module that is compiled under the limit would be cut short for all others
    root, name, limit = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
    writer = SpoolWriter(root, name, lambda: b"opening")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    kept = [number for number in range(200) if writer.append(b"%04d" % number + b"x" * 93)]
    full = {
        "kept": kept,
        "refused": writer.refused,
        "problem": writer.problem,
        "suspended": writer.is_suspended,
        "end": writer.end,
    }
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    deadline = time.monotonic() + 60
    while not writer.append(b"room again") and time.monotonic() < deadline:
        time.sleep(0.01)
    after = {"end": writer.end, "problem": writer.problem, "suspended": writer.is_suspended}
    os.write(1, json.dumps({"full": full, "after": after}).encode())


if __name__ == "__main__":
    main()
