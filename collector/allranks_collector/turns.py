"""Whose turn it is to send a file: a few at a time, the others in line. Pure: time is passed in.

A sender may have 16 MiB on the way. With few at a time what arrives has room in memory, and is not dropped to be sent
again; and a few keep any disk busy. A sender that waits hears nothing, and offers its file again and again.
"""

from __future__ import annotations

# One turn is left to files that fit into a sender's window: they do not wait for checkpoints.
TURNS = 4
LARGE_BYTES = 16 * 1024 * 1024
# Beyond so many in line, the next ones are not noted: they offer again.
MAX_WAITING = 4096
# Who has the turn and sends nothing loses it to somebody who waits; who waits and asks no more leaves the line.
IDLE_S = 10.0
PATIENCE_S = 60.0


class Turns:
    """Who has a turn, and who waits for one."""

    def __init__(self) -> None:
        # transfer → (large, when it was last heard); in the order in which they came.
        self._sending: dict[bytes, tuple[bool, float]] = {}
        self._waiting: dict[bytes, tuple[bool, float]] = {}

    def has(self, transfer: bytes) -> bool:
        """True while it is this transfer's turn."""
        return transfer in self._sending

    def is_waiting(self, transfer: bytes) -> bool:
        """True while it is in line."""
        return transfer in self._waiting

    def ask(self, transfer: bytes, size: int, now: float) -> bool:
        """Asks for a turn, again and again; True where it has one. A place in line is kept, if there is room."""
        large = size > LARGE_BYTES
        if transfer in self._sending:
            self._sending[transfer] = large, now
            return True
        # Nobody is passed over: whoever waits cannot go either, or `advance` would have said so.
        if self._is_free(large):
            self._waiting.pop(transfer, None)
            self._sending[transfer] = large, now
            return True
        if transfer in self._waiting or len(self._waiting) < MAX_WAITING:
            self._waiting[transfer] = large, now
        return False

    def hear(self, transfer: bytes, now: float) -> None:
        """It has sent something, or is being worked on."""
        if transfer in self._sending:
            self._sending[transfer] = self._sending[transfer][0], now

    def leave(self, transfer: bytes) -> None:
        """It is done with, or given up; `advance` tells who comes next."""
        self._sending.pop(transfer, None)
        self._waiting.pop(transfer, None)

    def advance(self, now: float) -> tuple[list[bytes], list[bytes]]:
        """Who has a turn from now on, and who has lost it or left the line."""
        gone = [transfer for transfer, (_, heard) in self._waiting.items() if now - heard > PATIENCE_S]
        for transfer in gone:
            del self._waiting[transfer]
        limit_s = IDLE_S if self._waiting else PATIENCE_S
        idle = [transfer for transfer, (_, heard) in self._sending.items() if now - heard > limit_s]
        for transfer in idle:
            del self._sending[transfer]
        come: list[bytes] = []
        for transfer, (large, _) in list(self._waiting.items()):
            if len(self._sending) >= TURNS:
                break
            if self._is_free(large):
                del self._waiting[transfer]
                self._sending[transfer] = large, now
                come.append(transfer)
        return come, gone + idle

    def _is_free(self, large: bool) -> bool:
        larges = sum(is_large for is_large, _ in self._sending.values())
        return len(self._sending) < TURNS and not (large and larges >= TURNS - 1)
