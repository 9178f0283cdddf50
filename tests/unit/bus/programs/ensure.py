"""Asks for the collector of ALLRANKS_HOME, and says what came of it, and which children that left, as JSON.

Waits for a byte on stdin first, so that many can ask at once. Arguments: the time to wait, and (optional) a directory
to be in.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from allranks_bus.errors import AllranksError
from allranks_bus.launch import ensure_collector


def main() -> None:
    """An error is told by its class and its text."""
    os.chdir(sys.argv[2] if sys.argv[2:] else ".")
    os.write(1, b"ready\n")
    os.read(0, 1)
    told: dict[str, object] = {}
    try:
        endpoint = ensure_collector(os.environ, timeout_s=float(sys.argv[1]))
        told["endpoint"] = asdict(endpoint) if endpoint else None
    except AllranksError as error:
        told["error"], told["text"] = type(error).__name__, str(error)
    try:
        told["child"] = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        told["child"] = None
    print(json.dumps(told))


if __name__ == "__main__":
    main()
