"""When a file is ready to be sent: once it is closed and quiet, or has been left alone for long enough. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from allranks_bus.files.outbox_ledger import Key
from allranks_bus.files.source import SMALL_BYTES, State, Writers

# A closed file is whole; this is for whoever writes it in several steps.
QUIET_S = 0.3
# One that somebody has open for writing, or of which nobody can tell.
OPEN_QUIET_S = 5.0
# A small one that is written to all the time (a text log) is sent this often as it is.
AS_IT_IS_S = 30.0
# Of what is written within one tick of the kernel's clock, two states look alike.
CLOCK_TICK_S = 0.02


class Watch:
    """Since when each file has been in the state in which it is."""

    def __init__(self) -> None:
        self._since: dict[Key, tuple[State, float]] = {}
        # When it was first seen, or last sent.
        self._touched: dict[Key, float] = {}

    def see(self, states: Mapping[Key, State], now: float) -> None:
        """Takes in all files that there are (monotonic time); others are forgotten."""
        self._since = {
            key: before if (before := self._since.get(key)) is not None and before[0] == state else (state, now)
            for key, state in states.items()
        }
        self._touched = {key: self._touched.get(key, now) for key in states}

    def sent(self, key: Key, now: float) -> None:
        """A file has been sent."""
        if key in self._touched:
            self._touched[key] = now

    def is_ready(self, key: Key, now: float, wall_ns: int, writers: Callable[[], Writers]) -> bool:
        """Whether a file that was seen is to be sent now.

        Args:
            now: monotonic. wall_ns: the wall clock, which the file's own time is held against.
            writers: asked only where it matters.
        """
        state, since = self._since[key]
        if state.size <= SMALL_BYTES and now - self._touched[key] >= AS_IT_IS_S:
            return True
        seen_s = now - since
        if max(seen_s, (wall_ns - state.modified_ns) / 1e9) < QUIET_S:
            return False
        return seen_s >= OPEN_QUIET_S or writers() is Writers.NONE

    def is_ready_at_flush(self, key: Key, wall_ns: int, flush_s: float) -> bool:
        """Whether a file is to be sent as it is, `flush_s` seconds after that was asked for."""
        state, _ = self._since[key]
        return (wall_ns - state.modified_ns) / 1e9 >= CLOCK_TICK_S or flush_s >= QUIET_S
