"""What a training program tells its test while it runs, and is told: a few integers in a mapped file.

The page cache outlives any death of the program, so what it noted last is known whatever happened to it.
"""

from __future__ import annotations

import mmap
from pathlib import Path

# The cells, each an int64 that is written at once.
RETURNED, SLOWEST_NS, STOP, PHASE, DROPPED = range(5)
_CELLS = 8


class Progress:
    """The cells of one program; `Progress.new` in the test, `Progress(path)` in the program."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self.cells = memoryview(mmap.mmap(file.fileno(), 8 * _CELLS)).cast("q")

    @classmethod
    def new(cls, path: Path) -> Progress:
        """Cells of 0 in a new file."""
        path.write_bytes(bytes(8 * _CELLS))
        return cls(path)

    @property
    def returned(self) -> int:
        """How many calls of log() have returned, at the least: one more may have, a moment ago."""
        return self.cells[RETURNED]

    @property
    def slowest_s(self) -> float:
        """The longest call of log() so far."""
        return self.cells[SLOWEST_NS] / 1e9

    @property
    def dropped(self) -> int:
        """How many records could not be kept; up to date now and then, and before the program ends."""
        return self.cells[DROPPED]

    @property
    def phase(self) -> int:
        """How far the program says it is."""
        return self.cells[PHASE]

    def ask_to_stop(self) -> None:
        """Lets the program leave its loop."""
        self.cells[STOP] = 1
