"""The file courier: carries files to a collector over ZeroMQ, several at a time, and tells how each of them ended.

It belongs to the thread that made it, and must not outlive a fork.
"""

from __future__ import annotations

import os
import time
import zlib
from dataclasses import dataclass
from enum import Enum

from allranks_bus.addresses import Address
from allranks_bus.files.names import transfer_id
from allranks_bus.files.search import Found
from allranks_bus.files.source import CannotSend, FileChanged, Source
from allranks_bus.files.transfer import Flight, Kind, Step
from allranks_bus.link import Link
from allranks_bus.wire import (
    WRITER_ID_BYTES,
    Abort,
    Beat,
    End,
    FileAt,
    FileRefused,
    FileStored,
    Offer,
    pack_abort,
    pack_beat,
    pack_chunk_header,
    pack_end,
    pack_offer,
)

# The window bounds their bytes; this their number, many of which are small.
_HIGH_WATER_MARK = 1000
# A collector lets a few files in at a time, and has the others wait in silence: answers to beats tell that it lives.
_BEAT_S = 1.0
# Small files are offered many at a time, so that each costs no round trip. Large ones stand in nobody's way.
MAX_FILES, MAX_LARGE = 64, 4
LARGE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Parcel:
    """A file to carry, and what the collector is told of it.

    Attributes:
        owner: the user whose file it must be.
    """

    found: Found
    run: str
    project: str
    launch: str
    host: str
    rank: int | None
    owner: int

    @property
    def transfer(self) -> bytes:
        # Where several hosts see a file, it is enough that one of them sends it.
        state, host = self.found.state, "" if self.found.is_shared else self.host
        return transfer_id(self.run, host, self.found.name, state.size, state.modified_ns, state.inode)


class Fate(Enum):
    """How the carrying of a file ended."""

    STORED = "stored"
    """It is with the collector; the text is its digest."""
    NEVER = "never"
    """It cannot be stored, as the text says."""
    NOT_NOW = "not now"
    """It cannot be stored at the moment, as the text says."""
    CHANGED = "changed"
    """It was not the same at the end as at the start."""
    GONE = "gone"
    """It is not there any more."""


@dataclass(frozen=True)
class Outcome:
    """How the carrying of a parcel ended."""

    parcel: Parcel
    fate: Fate
    text: str = ""


class FileCourier:
    """Carries files to the collector at an address.

    Attributes:
        moved_at: monotonic time at which the collector last got further with a file.
        stored_bytes: of the files that it has stored.
    """

    def __init__(self) -> None:
        self.moved_at = float("-inf")
        self.stored_bytes = 0
        self._name = os.urandom(WRITER_ID_BYTES)
        self._link = Link(self._name, _HIGH_WATER_MARK)
        self._flight = Flight()
        self._parcels: dict[bytes, Parcel] = {}
        # Those of which something has been sent.
        self._sources: dict[bytes, Source] = {}
        self._outcomes: list[Outcome] = []
        self._beat_at = float("-inf")

    @property
    def is_connected(self) -> bool:
        """True between `connect` and `disconnect`; it tells nothing of the other side."""
        return self._link.is_connected

    @property
    def heard_at(self) -> float | None:
        """Monotonic time of the newest message from the collector; None before the first."""
        return self._link.heard_at

    @property
    def is_idle(self) -> bool:
        """True where it carries nothing."""
        return not self._parcels

    @property
    def acked(self) -> dict[str, int]:
        """How much of each file that it carries is with the collector."""
        return {parcel.found.name: self._flight.acked(name) for name, parcel in self._parcels.items()}

    def connect(self, address: Address) -> None:
        """Begins to speak with the collector at `address`, whether it is there yet or not."""
        self._link.connect(address)
        self._flight.restart()
        self._beat_at = float("-inf")

    def disconnect(self) -> None:
        """Leaves the collector; what is in flight will be sent again after the next `connect`."""
        self._link.disconnect()
        self._flight.restart()

    def close(self) -> None:
        """Ends the courier; never waits for the network."""
        for source in self._sources.values():
            source.close()
        self._link.close()

    def has_room_for(self, size: int) -> bool:
        """Whether a file of this size may be added."""
        if len(self._parcels) >= MAX_FILES:
            return False
        large = sum(parcel.found.state.size > LARGE_BYTES for parcel in self._parcels.values())
        return size <= LARGE_BYTES or large < MAX_LARGE

    def carries(self, parcel: Parcel) -> bool:
        """Whether it carries the same file under the same name: there may be two paths to it."""
        return parcel.transfer in self._parcels

    def add(self, parcel: Parcel) -> None:
        """Takes a file in, which it does not carry; `outcomes` tells later how that ended."""
        self._parcels[parcel.transfer] = parcel
        self._flight.add(parcel.transfer, parcel.found.state.size)

    def outcomes(self) -> list[Outcome]:
        """How files ended since the last time."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def pump(self) -> bool:
        """Sends what the window allows; True where more would have been sent than the queue took."""
        now = time.monotonic()
        if self._parcels and now >= self._beat_at and self.is_connected:
            self._beat_at = now + _BEAT_S
            self._link.send(*pack_beat(Beat(self._name, 0, 0, time.time_ns(), {"drained": True})))
        while self.is_connected and (due := self._flight.next(time.monotonic())) is not None:
            name, step = due
            parcel = self._parcels[name]
            try:
                if not self._send(name, parcel, step):
                    return True
                self._flight.sent_one(name, step, time.monotonic())
            except FileChanged:
                self._give_up(name, Fate.CHANGED)
            except CannotSend as error:
                self._give_up(name, Fate.NEVER, str(error))
            except FileNotFoundError:
                self._give_up(name, Fate.GONE)
            except OSError as error:
                self._give_up(name, Fate.NOT_NOW, f"it cannot be read: {error.strerror}")
        return False

    def hear(self) -> None:
        """Takes in what the collector has said."""
        for message in self._link.hear():
            now = time.monotonic()
            if isinstance(message, FileAt):
                if self._flight.on_at(message, now):
                    self.moved_at = now
            elif isinstance(message, FileStored) and message.transfer in self._parcels:
                self.moved_at = now
                self.stored_bytes += self._parcels[message.transfer].found.state.size
                self._end(message.transfer, Fate.STORED, message.digest)
            elif isinstance(message, FileRefused) and message.transfer in self._parcels:
                self._end(message.transfer, Fate.NEVER if message.is_final else Fate.NOT_NOW, message.reason)

    def wait(self, timeout_s: float) -> None:
        """Returns when the collector has said something, a file is due to be offered again, or the time is over."""
        self._link.wait(max(0.0, min(timeout_s, self._flight.due - time.monotonic())))

    def _send(self, name: bytes, parcel: Parcel, step: Step) -> bool:
        if step.kind is Kind.OFFER:
            return self._link.send(*pack_offer(self._offer(name, parcel)))
        found = parcel.found
        source = self._sources.get(name)
        if source is None:
            source = self._sources[name] = Source(found.path, found.root, parcel.owner, found.state)
        if step.kind is Kind.CHUNK:
            body = source.read(step.offset, step.length)
            return self._link.send(
                pack_chunk_header(self._name, name, step.offset, zlib.crc32(body)), body, copy=False
            )
        source.check()
        return self._link.send(*pack_end(End(self._name, name, found.state.size)))

    def _offer(self, name: bytes, parcel: Parcel) -> Offer:
        state = parcel.found.state
        return Offer(
            sender=self._name,
            transfer=name,
            sent_ns=time.time_ns(),
            run=parcel.run,
            project=parcel.project,
            launch=parcel.launch,
            host=parcel.host,
            name=parcel.found.name,
            size=state.size,
            modified_ns=max(0, state.modified_ns),
            rank=parcel.rank,
        )

    def _give_up(self, name: bytes, fate: Fate, text: str = "") -> None:
        # Where it is lost, what came of the file stays with the collector for a while, and is then thrown away.
        self._link.send(*pack_abort(Abort(self._name, name)))
        self._end(name, fate, text)

    def _end(self, name: bytes, fate: Fate, text: str = "") -> None:
        self._flight.remove(name)
        source = self._sources.pop(name, None)
        if source is not None:
            source.close()
        self._outcomes.append(Outcome(self._parcels.pop(name), fate, text))
