"""Values that were logged while they were on a device, until they have come to the host and into the spool.

`log()` puts them here and returns; the publisher's thread stores what has come, with the step and the time of the
call. Their order is kept. What has not come when the process is killed is lost: only the device had it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from allranks._device import Arrivals, OnDevice, may_ask_from_this_thread
from allranks._signals import is_from_handler
from allranks._warnings import warn_once
from allranks_bus import events
from allranks_bus.events import Kind

MAX_PENDING = 4096
# Where more than this wait, the thread that logs helps to store those that have come.
_HELP_FROM = 256
_LOOK_S = 0.002

# What a forked child has inherited, and must not free.
_of_the_parent: list[object] = []


class Log(Protocol):
    """What is asked of a rank's log."""

    def append(self, payload: bytes) -> bool: ...
    def append_fields(self, time_ns: int, step: int, fields: Mapping[str, Any]) -> None: ...


class Pending:
    """A companion of a run: the values of one writer that have not come yet.

    Nothing here waits for a device, but `finish` until its deadline: a device that hangs must not silence the
    thread that tells the collector that this process is there. So there is a bound to how many may wait, which a
    device that works never meets: it takes about a thousand orders ahead, then the program itself waits for it.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._waiting: deque[tuple[int, int, Arrivals]] = deque()
        # Held by whoever stores, so that the order is kept.
        self._storing = threading.Lock()
        self._lost = 0
        # None until the publisher's thread has tried.
        self._may_tick: bool | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def copy(self, step: int, values: Mapping[str, OnDevice], time_ns: int | None = None) -> None:
        """Has values copied to the host, and stored when they have come; does not wait. A time of None is now."""
        arrivals = Arrivals(sys.modules["torch"])
        for name, value in values.items():
            arrivals.add(name, value)
        self.put(step, arrivals, time_ns)

    def put(self, step: int, arrivals: Arrivals, time_ns: int | None = None) -> None:
        """Stores these values when they have come, with this step and time."""
        if len(self._waiting) >= MAX_PENDING:
            self._lost += 1
            warn_once("pending", f"{MAX_PENDING:,} events wait for a device that does not answer: more are not kept")
        else:
            self._waiting.append((time.time_ns() if time_ns is None else time_ns, step, arrivals))
        if not self._may_tick or len(self._waiting) > _HELP_FROM:
            self._store()

    def tick(self) -> None:
        """Stores what has come."""
        if not self._waiting or self._may_tick is False:
            return
        if self._may_tick is None:
            self._may_tick = may_ask_from_this_thread(sys.modules["torch"])
        if self._may_tick:
            self._store()

    def finish(self, deadline: float) -> bool:
        """Stores what comes until `deadline`; the rest is counted as dropped."""
        # Whoever is storing at the moment is waited for too: it has some in its hand.
        self._store(deadline)
        while self._waiting and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            self._store(deadline)
        waiting, self._waiting = self._waiting, deque()
        lost, self._lost = self._lost + len(waiting), 0
        if lost:
            reason = "they were on a device that did not hand them over in time"
            warn_once("pending lost", f"{lost:,} events are lost: {reason}")
            self._log.append(events.pack(Kind.DROPPED, time.time_ns(), {"records": lost, "reason": reason}))
        return not lost

    def leave(self) -> None:
        """Nothing: nobody else can read what is on this process's device."""

    def abandon(self) -> None:
        """In a forked child: the parent stores them. The device may not be touched here, not even to let go of it."""
        _of_the_parent.append(self._waiting)
        self._waiting = deque()

    def _store(self, deadline: float = 0.0) -> None:
        """Stores the oldest, as far as they have come; leaves it to whoever is at it already, after `deadline`."""
        if not self._storing.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return
        try:
            waiting = self._waiting
            while waiting and (has_come := self._has_come(waiting[0][2])) is not False:
                oldest = waiting.popleft()
                if has_come is None:
                    self._lost += 1
                    continue
                try:
                    self._keep(*oldest)
                except BaseException:  # of a signal handler: they come again
                    waiting.appendleft(oldest)
                    raise
        finally:
            self._storing.release()

    def _has_come(self, arrivals: Arrivals) -> bool | None:
        """None where these never will."""
        try:
            return arrivals.have_come()
        except Exception as error:  # as CUDA tells of whatever went wrong on the device before
            if is_from_handler(error):
                raise
            warn_once("device", f"values on a device cannot be read: {type(error).__name__}: {error}"[:500])
            return None

    def _keep(self, time_ns: int, step: int, arrivals: Arrivals) -> None:
        values, problems = arrivals.read()
        for name, reason in problems.items():
            warn_once(f"value:{name}", f"{name!r} is not stored: {reason}")
        self._log.append_fields(time_ns, step, values)
