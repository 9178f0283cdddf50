"""The courier: carries one log to a collector over ZeroMQ, from a plain thread.

The publisher of a training process and `allranks sync` both stand on it. It belongs to the thread that made it, and
must not outlive a fork.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from allranks_bus.addresses import Address
from allranks_bus.link import Link
from allranks_bus.log import Log
from allranks_bus.polling import wait_readable
from allranks_bus.shipping import Shipment
from allranks_bus.wire import Ack, Beat, Command, Refused, pack_batch_header, pack_beat

# Few, because a batch is about 128 KiB and what lies in ZeroMQ's queue must be sent again after a reconnect.
SEND_HIGH_WATER_MARK = 64
_MUCH_BYTES = 32 * 1024


class Courier:
    """Ships `log` to the collector at an address, and hears its answers.

    Attributes:
        shipment: how far it has come.
        collector: the 16 bytes of the collector's instance; empty before its first ack.
    """

    def __init__(self, name: bytes, log: Log) -> None:
        self.shipment = Shipment(log)
        self.collector = b""
        self._name = name
        self._log = log
        self._link = Link(name, SEND_HIGH_WATER_MARK)

    @property
    def is_connected(self) -> bool:
        """True between `connect` and `disconnect`; it tells nothing of the other side."""
        return self._link.is_connected

    @property
    def heard_at(self) -> float | None:
        """Monotonic time of the newest message from the collector; None before the first."""
        return self._link.heard_at

    def connect(self, address: Address) -> None:
        """Begins to speak with the collector at `address`, whether it is there yet or not."""
        self.disconnect()
        self._link.connect(address)

    def disconnect(self) -> None:
        """Leaves the collector; what is in flight will be sent again after the next `connect`."""
        self._link.disconnect()
        self.shipment.restart()

    def close(self) -> None:
        """Ends the courier; never waits for the network."""
        self.disconnect()
        self._link.close()

    def beat(self, status: Mapping[str, Any]) -> None:
        """Sends a sign of life, unless the socket's queue is full."""
        beat = Beat(self._name, self._log.end, self._log.base, time.time_ns(), status)
        self._link.send(*pack_beat(beat))

    def pump(self, *, is_urgent: bool = False) -> bool:
        """Sends what the window allows; True where more would have been sent than it does. `is_urgent`: to the end.

        What is logged while it sends is left for the next time, unless it is much: else a steady training would get
        a message of one event behind each of many.
        """
        while (parcel := self.shipment.next(time.monotonic())) is not None:
            header = pack_batch_header(
                self._name, parcel.first_seq, parcel.count, parcel.base, time.time_ns(), is_urgent=is_urgent
            )
            if not self._link.send(header, parcel.body):
                return True
            self.shipment.sent_one(parcel, time.monotonic())
            if len(parcel.body) < _MUCH_BYTES and not is_urgent:
                return False
        return self.shipment.sent < self._log.end

    def wait(self, timeout_s: float, wake_fd: int | None = None, *, hear: bool = True) -> bool:
        """Returns when `wake_fd` is readable, the time is over, or, with `hear`, the collector has said something.

        True in the first of these cases.
        """
        timeout_s = max(0.0, timeout_s)
        if hear and self._link.is_connected:
            return self._link.wait(timeout_s, wake_fd)
        # Many times cheaper than ZeroMQ's own poll, and what a steady training waits in.
        return bool(wait_readable(() if wake_fd is None else (wake_fd,), timeout_s))

    def hear(self) -> list[Command | Refused]:
        """Takes in what the collector has said; acks move the shipment, the rest is for the caller."""
        others: list[Command | Refused] = []
        for message in self._link.hear():
            if isinstance(message, Ack):
                self.collector = message.collector
                self.shipment.on_ack(message, time.monotonic())
            elif isinstance(message, Command | Refused):
                others.append(message)
        return others
