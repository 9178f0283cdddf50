"""Limits: how much of what a rank prints is kept, when it prints without end; and what is lost. Pure.

burst ▔▔▔╲                  ╱╲            kept until the burst is used up; then nothing, until a second's worth is
          ╲      ╱╲     ╱╲ ╱  ╲           free again: so what is kept comes in pieces that can be read, and a
    0 ▁▁▁▁▁╲▁▁▁▁╱▁▁╲▁▁▁╱▁▁╲▁▁▁▁▁          loss is told once a second, and not once a read
           kept ┊ not ┊ kept
"""

from __future__ import annotations

_MIB = 1024 * 1024
# What is free again after so long is kept on.
_PIECE_S = 1.0


class Limits:
    """The limits of one rank's console, in bytes.

    Args:
        rate: a second, for long.
        burst: at once, after quiet times.
        most: in all.
    """

    def __init__(self, rate: int = 2 * _MIB, burst: int = 64 * _MIB, most: int = 4096 * _MIB) -> None:
        self.rate = rate
        self.burst = burst
        self.most = most


class Loss:
    """What could not be kept, counted.

    Attributes:
        records: pieces of it.
        size: in bytes.
        lines: how many ended in it.
    """

    def __init__(self) -> None:
        self.records = self.size = self.lines = 0

    def __bool__(self) -> bool:
        return self.records > 0

    def add(self, body: bytes) -> None:
        """Counts a piece that is not kept."""
        self.records += 1
        self.size += len(body)
        self.lines += body.count(b"\n")

    def join(self, other: Loss) -> None:
        """Counts all of another loss too."""
        self.records += other.records
        self.size += other.size
        self.lines += other.lines


class Allowance:
    """What may be kept now, by `Limits`; who calls tells the time, in monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = float(limits.burst)
        self._left = limits.most
        self._seen_at = float("-inf")
        self._is_used_up = False

    def take(self, size: int, now: float) -> bool:
        """True where so many bytes may be kept: what was free is begun with, though they may be more."""
        if not self.is_open(now):
            return False
        self._free -= size
        self._left -= size
        self._is_used_up = self._free <= 0
        return True

    def is_open(self, now: float) -> bool:
        """Whether anything may be kept."""
        limits = self._limits
        if self._seen_at < now:
            gone_s = min(now - self._seen_at, limits.burst / max(1, limits.rate) + 1.0)
            self._free = min(float(limits.burst), self._free + gone_s * limits.rate)
            self._seen_at = now
        if self._is_used_up and self._free >= self._piece:
            self._is_used_up = False
        return self._left > 0 and not self._is_used_up

    def wait_s(self, now: float) -> float | None:
        """How long until anything may be kept; None where that is never."""
        if self.is_open(now):
            return 0.0
        if self._left <= 0 or not self._limits.rate:
            return None
        return (self._piece - self._free) / self._limits.rate

    @property
    def reason(self) -> str:
        """Why nothing may be kept."""
        limits = self._limits
        if self._left <= 0:
            return f"a rank's console is kept up to {_mib(limits.most)} MiB (ALLRANKS_CONSOLE_MAX_MB)"
        return (
            f"it printed more than {_mib(limits.rate)} MiB/s for long, after {_mib(limits.burst)} MiB at once "
            "(ALLRANKS_CONSOLE_RATE_MB, ALLRANKS_CONSOLE_BURST_MB)"
        )

    @property
    def _piece(self) -> float:
        return min(float(self._limits.burst), _PIECE_S * self._limits.rate)


def _mib(size: int) -> str:
    return f"{size / _MIB:,.10g}"
