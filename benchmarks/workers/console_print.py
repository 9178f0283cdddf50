"""A program that prints lines and ends; it writes down when it began to print, and when it had printed all."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import allranks
from benchmarks.workers.lines import arguments


def main() -> None:
    told = arguments()
    allranks.init(project="bench", id=told["run"], console=told["console"])
    lines, text, is_flushed = range(told["lines"]), "x" * (told["line_bytes"] - 9), told["is_flushed"]
    # A training has begun long before: what starts beside it has started.
    time.sleep(told["pause_s"])
    begun = time.monotonic()
    for number in lines:
        print(f"{number:07d} {text}", flush=is_flushed)
    sys.stdout.flush()
    Path(told["times"]).write_text(json.dumps({"begun": begun, "printed": time.monotonic()}))


if __name__ == "__main__":
    main()
