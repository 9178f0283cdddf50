"""`python -m allranks_bus.detach MODULE [ARGUMENT…]` runs a module as a process that nobody is the parent of.

A training process must not get a child that it did not make: `os.wait()` would return it, and its end would leave a
zombie. So the starter waits for this process, which forks and ends at once; the child lives on under init.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys


def main() -> None:
    """Forks; the parent ends, the child runs the module, and takes the signals that its starter has blocked."""
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
