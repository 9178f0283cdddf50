"""Shipping: which records to send next, when to send them again, and what may be forgotten.

Go-back-N, as in TCP, over a log that keeps everything until it is acked. Pure: no socket, no clock; the caller
passes the time and sends what it is given. docs/protocol.md §8.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from allranks_bus.log import Log
from allranks_bus.wire import Ack

WINDOW_BYTES = 8 * 1024 * 1024
RESEND_AFTER_S = 2.0
RESEND_AT_MOST_S = 30.0


@dataclass(frozen=True)
class Parcel:
    """Records to send as one batch."""

    first_seq: int
    count: int
    base: int
    body: bytes


class Shipment:
    """The state of one log on its way to one collector.

    Attributes:
        acked: all records before this seq are stored.
        sent: the seq of the next record to send.
        resends: how often it went back.
    """

    def __init__(self, log: Log, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._log = log
        self._window_bytes = window_bytes
        self.acked = log.base
        self.sent = log.base
        self.resends = 0
        # (seq after it, bytes) of each batch that is sent and not acked, oldest first.
        self._in_flight: deque[tuple[int, int]] = deque()
        self._in_flight_bytes = 0
        self._patience_s = RESEND_AFTER_S
        self._deadline: float | None = None

    @property
    def is_done(self) -> bool:
        """True where everything in the log is stored."""
        return self.acked >= self._log.end

    @property
    def deadline(self) -> float | None:
        """When `next` will go back if no ack comes; None while nothing is in flight."""
        return self._deadline

    def next(self, now: float) -> Parcel | None:
        """What to send now, or None: nothing waits, or the window is full. Call `sent_one` once it is sent."""
        if self._deadline is not None and now >= self._deadline:
            self._patience_s = min(2 * self._patience_s, RESEND_AT_MOST_S)
            self._go_back(self.acked)
        if self._in_flight_bytes >= self._window_bytes:
            return None
        base = self._log.base
        self.sent = max(self.sent, base)
        count, body = self._log.read(self.sent)
        if not count or (self._in_flight and self._in_flight_bytes + len(body) > self._window_bytes):
            return None
        return Parcel(self.sent, count, base, body)

    def sent_one(self, parcel: Parcel, now: float) -> None:
        """Notes that `parcel` is on its way."""
        self.sent = parcel.first_seq + parcel.count
        self._in_flight.append((self.sent, len(parcel.body)))
        self._in_flight_bytes += len(parcel.body)
        if self._deadline is None:
            self._deadline = now + self._patience_s

    def on_ack(self, ack: Ack, now: float) -> bool:
        """Takes an ack in; True where it moved the position.

        An ack behind the position comes from a collector that knows less than the one before it: everything that is
        still held goes to it.
        """
        position = ack.next_seq
        if position > self._log.end:
            return False  # it speaks of records that this log does not have; nothing can follow from that
        if ack.resend or position < self.acked:
            self.acked = max(position, self._log.base)
            self._go_back(self.acked)
            return False
        if position == self.acked:
            return False
        self.acked = position
        self.sent = max(self.sent, position)
        while self._in_flight and self._in_flight[0][0] <= position:
            self._in_flight_bytes -= self._in_flight.popleft()[1]
        self._patience_s = RESEND_AFTER_S
        self._deadline = now + self._patience_s if self._in_flight else None
        self._log.release(position)
        return True

    def restart(self) -> None:
        """Forgets what is in flight: the connection it went into is gone."""
        self._patience_s = RESEND_AFTER_S
        self._go_back(self.acked)

    def _go_back(self, seq: int) -> None:
        if self.sent > seq:
            self.resends += 1
        self.sent = seq
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self._deadline = None
