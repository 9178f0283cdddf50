"""One clock for all ranks, the collector's: how far each writer's clock is from it.

A beat says when it was sent. What its arrival shows in excess of that is the distance of the two clocks and the time
that it was under way, which is never negative: the smallest excess of many beats is the nearest to the distance.
Pure: times are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

# A clock may be set, and drifts: only the beats of this span, and of the one before it, count.
WINDOW_NS = 60 * 10**9
# A better estimate is worth storing when it differs by so much.
WORTH_NS = 2_000_000


@dataclass
class _Estimate:
    """The smallest excess of this window and of the one before it."""

    began_ns: int
    now_ns: int
    before_ns: int | None = None
    stored_ns: int | None = None

    @property
    def offset_ns(self) -> int:
        return self.now_ns if self.before_ns is None else min(self.now_ns, self.before_ns)


class Clocks:
    """The offset of each writer's clock: the collector's minus its own, in ns."""

    def __init__(self) -> None:
        self._estimates: dict[int, _Estimate] = {}

    def see(self, writer: int, arrived_ns: int, sent_ns: int) -> int | None:
        """Takes in a message; returns the offset where it has become another, to be stored."""
        excess = arrived_ns - sent_ns
        estimate = self._estimates.get(writer)
        if estimate is None:
            estimate = self._estimates[writer] = _Estimate(arrived_ns, excess)
        elif arrived_ns - estimate.began_ns >= WINDOW_NS:
            estimate.before_ns, estimate.now_ns, estimate.began_ns = estimate.now_ns, excess, arrived_ns
        else:
            estimate.now_ns = min(estimate.now_ns, excess)
        offset = estimate.offset_ns
        if estimate.stored_ns is not None and abs(offset - estimate.stored_ns) < WORTH_NS:
            return None
        estimate.stored_ns = offset
        return offset

    def forget(self, writer: int) -> None:
        """Drops what is known of a writer that is watched no longer."""
        self._estimates.pop(writer, None)
