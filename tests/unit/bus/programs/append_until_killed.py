"""Appends numbered records to a spool until it is killed; after each append that returned, says so on stdout.

Arguments: the root, the writer's name in hex, the segment size, and (optional) `fork` to leave a forked child behind.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from allranks_bus.spool import SpoolWriter


def main() -> None:
    """Never ends by itself."""
    root, name, segment_bytes = Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
    writer = SpoolWriter(root, name, lambda: b"opening", segment_bytes=segment_bytes)
    if sys.argv[4:] == ["fork"] and os.fork() == 0:
        os.write(1, f"{os.getpid()}\n".encode())
        time.sleep(600)
    number = 0
    while True:
        writer.append(b"%08d" % number + b"x" * (number % 300))
        os.write(1, b"%d\n" % number)
        number += 1


if __name__ == "__main__":
    main()
