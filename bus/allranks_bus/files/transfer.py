"""Transfers: what to send next of each file under way, when to offer it again, and when it is done.

Go-back-N within a window of bytes that all transfers share. Pure: no socket, no file, no clock; the caller passes the
time and sends what it is told. docs/protocol.md §10.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from allranks_bus.wire import MAX_CHUNK_BYTES, FileAt

WINDOW_BYTES = 16 * 1024 * 1024
# Without progress for so long a file is offered again, and the answer tells where it stands.
SILENCE_S = 2.0
# A subscription takes a moment to arrive, and what was answered before it is lost.
FIRST_SILENCE_S = 0.03


class Kind(Enum):
    """What a step sends."""

    OFFER = "offer"
    CHUNK = "chunk"
    END = "end"


@dataclass(frozen=True)
class Step:
    """What to send next; `length` bytes from `offset` on where it is a chunk."""

    kind: Kind
    offset: int = 0
    length: int = 0


class Transfer:
    """One file of `size` bytes on its way to a collector.

    Attributes:
        acked: all before this offset is with the collector.
        sent: the offset of the next chunk.
        resent: how often it went back.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.acked = 0
        self.sent = 0
        self.resent = 0
        # Waits for the answer to an offer; else it may send.
        self._is_offered = True
        self._is_ended = False
        self._due = float("-inf")
        self._patience_s = FIRST_SILENCE_S
        # Offers whose answers may still come: they must not be taken for a request to send again.
        self._unanswered = 0
        self._went_back_at = float("-inf")

    @property
    def in_flight(self) -> int:
        """Bytes that are sent, and of which the collector has said nothing."""
        return self.sent - self.acked

    @property
    def is_at_start(self) -> bool:
        """True before the collector has answered an offer."""
        return self._is_offered

    @property
    def due(self) -> float:
        """When it will be offered (again), if nothing is heard."""
        return self._due

    def next(self, now: float, room: int) -> Step | None:
        """What to send now, if anything; call `sent_one` once it is sent.

        Args:
            room: bytes that may be sent.
        """
        if now >= self._due:
            return Step(Kind.OFFER)
        if self._is_offered or self._is_ended:
            return None
        length = min(MAX_CHUNK_BYTES, self.size - self.sent)
        if not length:
            return Step(Kind.END)
        return Step(Kind.CHUNK, self.sent, length) if length <= room else None

    def sent_one(self, step: Step, now: float) -> None:
        """Notes that `step` is on its way."""
        if step.kind is Kind.CHUNK:
            if not self.in_flight:
                self._due = now + SILENCE_S
            self.sent = step.offset + step.length
        elif step.kind is Kind.END:
            self._is_ended = True
            self._due = now + SILENCE_S
        else:
            # What is in flight arrives before the offer, so the answer speaks of that too.
            self._is_offered, self._is_ended = True, False
            self.sent = self.acked
            self._unanswered += 1
            self._due = now + self._patience_s
            self._patience_s = min(2 * self._patience_s, SILENCE_S)

    def on_at(self, offset: int, now: float) -> None:
        """Takes in how far the collector is."""
        if offset > self.size:
            return
        if self._is_offered:
            self._unanswered = max(0, self._unanswered - 1)
            self._is_offered = False
            self.acked = self.sent = offset
        elif offset > self.acked:
            self.acked = offset
            self.sent = max(self.sent, offset)
        elif offset == self.acked and self._unanswered:
            self._unanswered -= 1
            return
        elif now - self._went_back_at < SILENCE_S:
            return  # what is in flight behind a gap says so too
        else:
            self._went_back_at = now
            self.resent += 1
            self._is_ended = False
            self.acked = self.sent = offset
        self._patience_s = SILENCE_S
        self._due = now + SILENCE_S

    def restart(self) -> None:
        """Forgets what is in flight: the connection it went into is gone."""
        self._is_offered, self._is_ended = True, False
        self.sent = self.acked
        self._unanswered = 0
        self._due = float("-inf")
        self._patience_s = FIRST_SILENCE_S


class Flight:
    """The transfers under way to one collector, which take turns."""

    def __init__(self, *, window_bytes: int = WINDOW_BYTES) -> None:
        self._window_bytes = window_bytes
        # In the order of their turns.
        self._transfers: dict[bytes, Transfer] = {}
        self._in_flight = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def __contains__(self, name: bytes) -> bool:
        return name in self._transfers

    @property
    def in_flight(self) -> int:
        """Bytes of all transfers that are sent, and of which the collector has said nothing."""
        return self._in_flight

    @property
    def due(self) -> float:
        """When the first of them will be offered again."""
        return min((transfer.due for transfer in self._transfers.values()), default=float("inf"))

    def add(self, name: bytes, size: int) -> None:
        """Takes a transfer in, last in line."""
        self._transfers[name] = Transfer(size)

    def remove(self, name: bytes) -> None:
        """Leaves a transfer out: it is stored, refused, or given up."""
        transfer = self._transfers.pop(name, None)
        if transfer is not None:
            self._in_flight -= transfer.in_flight

    def acked(self, name: bytes) -> int:
        """How far a transfer is."""
        return self._transfers[name].acked

    def next(self, now: float) -> tuple[bytes, Step] | None:
        """What to send now, and of which transfer; None where all wait. Call `sent_one` once it is sent."""
        # A chunk goes out alone, however small the window.
        room = self._window_bytes - self._in_flight if self._in_flight else MAX_CHUNK_BYTES
        for name, transfer in self._transfers.items():
            step = transfer.next(now, room)
            if step is not None:
                return name, step
        return None

    def sent_one(self, name: bytes, step: Step, now: float) -> None:
        """Notes that `step` is on its way; the next one is another transfer's, if there is one."""
        transfer = self._transfers.pop(name)
        self._in_flight -= transfer.in_flight
        transfer.sent_one(step, now)
        self._in_flight += transfer.in_flight
        self._transfers[name] = transfer

    def on_at(self, message: FileAt, now: float) -> bool:
        """Takes in how far the collector is with a transfer; True where that is further than before."""
        transfer = self._transfers.get(message.transfer)
        if transfer is None:
            return False
        before, was_at_start = transfer.acked, transfer.is_at_start
        self._in_flight -= transfer.in_flight
        transfer.on_at(message.offset, now)
        self._in_flight += transfer.in_flight
        return transfer.acked > before or was_at_start

    def restart(self) -> None:
        """Forgets what is in flight: the connection it went into is gone."""
        self._in_flight = 0
        for transfer in self._transfers.values():
            transfer.restart()
