"""Drains every spool under a root, as `allranks sync` does.

python -m tests.faults.programs.drain ROOT ADDRESS
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.draining import drain_all

from allranks_bus.addresses import parse_address


def main(root: str, address: str) -> None:
    """Drains, and prints how many spools were its own to drain."""
    print(sum(drained.is_done for drained in drain_all(Path(root), parse_address(address))))


if __name__ == "__main__":
    main(*sys.argv[1:])
