"""The command `allranks`. This module is light: it only checks that what the commands need is installed."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDS = ("typer", "rich", "duckdb")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit status: 0, 1 for an error, 2 for wrong usage."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f'allranks: the command line needs {", ".join(missing)}: pip install "allranks[collector]"',
            file=sys.stderr,
        )
        return 1
    from allranks_collector.cli.app import run

    return run(sys.argv[1:] if argv is None else argv)
