"""Whose turn it is to send a file: as many at a time as there is memory for. Pure: time is passed in.

A sender may have 16 MiB of a file on the way. So what arrives has room in memory, and is not dropped to be sent
again; and a few large files keep any disk busy. Who waits hears nothing, and offers its file again and again.
"""

from __future__ import annotations

# What those who have a turn may have on their way together, and each of them at the most and at the least.
ROOM_BYTES = 64 * 1024 * 1024
WINDOW_BYTES = 16 * 1024 * 1024
LEAST_BYTES = 64 * 1024
# Files larger than a window. The rest of the room is for the others, which do not wait for checkpoints.
MAX_LARGE = 3
# A large file gives its turn to one that waits after so long, and goes to the end of the line.
SLICE_S = 10.0
# Beyond so many in line, the next ones are not noted: they offer again.
MAX_WAITING = 4096
# Who has the turn and sends nothing loses it to somebody who waits; who waits and asks no more leaves the line.
IDLE_S = 10.0
PATIENCE_S = 60.0


class Turns:
    """Who has a turn, and who waits for one."""

    def __init__(self) -> None:
        # transfer → (size, when it was last heard); in the order in which they came, and had their turn.
        self._sending: dict[bytes, tuple[int, float]] = {}
        self._waiting: dict[bytes, tuple[int, float]] = {}
        # Since when the large ones have had their turn.
        self._since: dict[bytes, float] = {}
        self._room_bytes = ROOM_BYTES
        self._waiting_small = 0

    def has(self, transfer: bytes) -> bool:
        """True while it is this transfer's turn."""
        return transfer in self._sending

    def is_waiting(self, transfer: bytes) -> bool:
        """True while it is in line."""
        return transfer in self._waiting

    def ask(self, transfer: bytes, size: int, now: float) -> bool:
        """Asks for a turn, again and again; True where it has one. A place in line is kept, if there is room."""
        if transfer in self._sending:
            self.hear(transfer, now)
            return True
        if not self._stands_behind(size) and self._has_room_for(size):
            self._admit(transfer, size, now)
            return True
        if transfer in self._waiting or len(self._waiting) < MAX_WAITING:
            self._waiting_small += transfer not in self._waiting and size <= WINDOW_BYTES
            self._waiting[transfer] = size, now
        return False

    def hear(self, transfer: bytes, now: float) -> None:
        """It has sent something."""
        if transfer in self._sending:
            self._sending[transfer] = self._sending[transfer][0], now

    def leave(self, transfer: bytes) -> None:
        """It is done with, or given up; `advance` tells who comes next."""
        if transfer in self._waiting:
            self._waiting_small -= self._waiting.pop(transfer)[0] <= WINDOW_BYTES
        if transfer in self._sending:
            size, _ = self._sending.pop(transfer)
            self._room_bytes += _share(size)
            self._since.pop(transfer, None)

    def advance(self, now: float) -> tuple[list[bytes], list[bytes]]:
        """Who has a turn from now on, and who is given up: it has lost its turn, or left the line."""
        gone = [transfer for transfer, (_, heard) in self._waiting.items() if now - heard > PATIENCE_S]
        limit_s = IDLE_S if len(self._waiting) > len(gone) else PATIENCE_S
        gone += [transfer for transfer, (_, heard) in self._sending.items() if now - heard > limit_s]
        for transfer in gone:
            self.leave(transfer)
        self._relieve(now)
        come: list[bytes] = []
        for transfer, (size, _) in list(self._waiting.items()):
            if self._is_one_too_many(size):
                continue
            if not self._has_room_for(size):
                break
            self.leave(transfer)
            self._admit(transfer, size, now)
            come.append(transfer)
        return come, gone

    def _relieve(self, now: float) -> None:
        """Large files that have had their time make room for those that wait."""
        waiting = len(self._waiting) - self._waiting_small
        for transfer, since in list(self._since.items())[:waiting]:
            if now - since >= SLICE_S:
                size, heard = self._sending[transfer]
                self.leave(transfer)
                self._waiting[transfer] = size, heard

    def _stands_behind(self, size: int) -> bool:
        """Whether somebody waits who comes first: large files hold up only each other."""
        return bool(self._waiting if size > WINDOW_BYTES else self._waiting_small)

    def _is_one_too_many(self, size: int) -> bool:
        return size > WINDOW_BYTES and len(self._since) >= MAX_LARGE

    def _has_room_for(self, size: int) -> bool:
        return _share(size) <= self._room_bytes and not self._is_one_too_many(size)

    def _admit(self, transfer: bytes, size: int, now: float) -> None:
        self._sending[transfer] = size, now
        self._room_bytes -= _share(size)
        if size > WINDOW_BYTES:
            self._since[transfer] = now


def _share(size: int) -> int:
    return min(max(size, LEAST_BYTES), WINDOW_BYTES)
