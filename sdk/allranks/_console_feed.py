"""A console's feed: what a living tee has kept is shipped by its training process, while both live."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from allranks_bus.addresses import Address, parse_address
from allranks_bus.courier import Courier
from allranks_bus.errors import AddressError, SpoolError
from allranks_bus.home import read_endpoint
from allranks_bus.spool_follower import SpoolFollower
from allranks_bus.spool_reader import SpoolReader

# A collector that knows less than the one before it is found out by a beat.
BEAT_S = 10.0
# What is not answered for so long goes over new sockets.
SILENCE_S = 5.0
# As the tee's own delivery has it.
PATIENCE_S = 4.0
FIND_S = 0.5
_WAIT_S = 0.02


class Feed:
    """Ships the spool of one tee. Its calls come from one thread at a time.

    Args:
        directory: the spool, which the tee makes.
        find: the address of the collector; None while there is none.
    """

    def __init__(self, directory: Path, find: Callable[[], Address | None]) -> None:
        self.directory = directory
        self._log = SpoolFollower(directory)
        self._courier: Courier | None = None
        self._find = find
        self._find_at = 0.0
        self._beat_at = 0.0
        self._connected_at = 0.0
        # Since when an answer is waited for; never, while all is stored.
        self._silent_since = float("inf")

    @property
    def waits_in_vain(self) -> bool:
        """True where nobody has answered for so long that it makes no sense to go on once this process is over."""
        return time.monotonic() - self._silent_since >= PATIENCE_S

    def step(self, *, is_urgent: bool = False) -> bool:
        """Sends what there is and hears what comes; True where all that the tee has written by now is stored."""
        has_more = self._log.look()
        if not self._log.end:
            return not self._log.is_there  # nothing has been printed
        now = time.monotonic()
        if not has_more and now < self._beat_at and self._courier is not None and self._courier.shipment.is_done:
            return True  # as at most ticks of most trainings
        try:
            self._ship(now, is_urgent=is_urgent)
        except SpoolError:
            if self.directory.exists():
                raise
            return True  # somebody else has shipped it
        return not has_more and self._courier is not None and self._courier.shipment.is_done

    def finish(self, deadline: float) -> bool:
        """Ships all that the tee has written by now, until `deadline` (monotonic seconds); True once it is stored."""
        while not self.step(is_urgent=True):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._courier is not None:
                self._courier.wait(min(_WAIT_S, left))
            else:
                time.sleep(min(_WAIT_S, left))
        return True

    def remove(self) -> None:
        """Ends with the spool of a tee that has ended: removes it, if nobody else is at it, and closes itself."""
        with contextlib.suppress(SpoolError):
            left = SpoolReader(self.directory)
            if self._courier is not None and left.end <= self._courier.shipment.acked:
                left.remove()
            else:
                left.close()
        self.close()

    def close(self) -> None:
        """Closes sockets and descriptors."""
        if self._courier is not None:
            self._courier.close()
        self._log.close()

    def _ship(self, now: float, *, is_urgent: bool) -> None:
        courier = self._courier
        if courier is None:
            # Not before there is something to ship: its first position is the log's.
            courier = self._courier = Courier(bytes.fromhex(self.directory.name), self._log)
        self._keep_connected(courier, now)
        if not courier.is_connected:
            return
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            # No sign of life: that is given by the rank, for its tee has no state of its own.
            courier.beat({"drained": True})
        courier.hear()
        courier.pump(is_urgent=is_urgent)

    def _keep_connected(self, courier: Courier, now: float) -> None:
        self._silent_since = float("inf") if courier.shipment.is_done else min(self._silent_since, now)
        if courier.heard_at is not None and courier.heard_at > self._silent_since:
            self._silent_since = courier.heard_at
        if courier.is_connected and now - max(self._silent_since, self._connected_at) < SILENCE_S:
            return
        if now < self._find_at:
            return
        self._find_at = now + FIND_S
        address = self._find()
        if address is not None:
            self._connected_at = self._beat_at = now
            courier.connect(address)


def finder(destination: str) -> Callable[[], Address | None]:
    """What finds the collector of this destination, as a spool names it; none is ever started here."""

    def embedded() -> Address | None:
        endpoint = read_endpoint(Path(destination.removeprefix("embedded:")))
        return parse_address(endpoint.url) if endpoint else None

    def named() -> Address | None:
        try:
            return parse_address(destination)
        except AddressError:
            return None

    return embedded if destination.startswith("embedded:") else named
