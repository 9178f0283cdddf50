"""When a collector knows how fast a training steps, as the training itself can tell."""

from __future__ import annotations

import allranks

# It judges a rank after a few moves, of which the first ones tell nothing; that much more is sure to be enough.
_ACKS = 8


class Pace:
    """Asked once in each step of a training, it tells whether the collector knows the pace of it by now.

    So many seconds of steps are no sign of that: where the machine is busy they may come to it in one batch.
    """

    def __init__(self, run: allranks.Run) -> None:
        self._run = run
        self._acked = 0
        self._acks = 0

    @property
    def is_known(self) -> bool:
        """True once it has stored something new of this process often enough, at as many moments."""
        acked = self._run.status()["acked"]
        if acked != self._acked:
            self._acked, self._acks = acked, self._acks + 1
        return self._acks >= _ACKS
