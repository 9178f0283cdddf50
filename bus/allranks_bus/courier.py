"""The courier: carries one log to a collector over ZeroMQ, from a plain thread.

The publisher of a training process and `allranks sync` both stand on it. It belongs to the thread that made it, and
must not outlive a fork.
"""

from __future__ import annotations

import select
import time
from collections.abc import Mapping
from typing import Any, cast

import zmq

from allranks_bus.addresses import Address
from allranks_bus.errors import ProtocolError
from allranks_bus.shipping import Shipment
from allranks_bus.spool import Log
from allranks_bus.wire import (
    MAX_CONTROL_BYTES,
    Ack,
    Beat,
    Command,
    Refused,
    pack_batch_header,
    pack_beat,
    unpack_down,
)

# Few, because a batch is about 128 KiB and what lies in ZeroMQ's queue must be sent again after a reconnect.
SEND_HIGH_WATER_MARK = 64
_MUCH_BYTES = 32 * 1024
_RECONNECT_MS, _RECONNECT_MAX_MS = 100, 2000


def wait_readable(fd: int | None, timeout_s: float) -> bool:
    """Waits until `fd` can be read, or the time is over; False in the second case, and where there is no `fd`."""
    poller = select.poll()  # select() takes no descriptor from 1024 on
    if fd is not None:
        poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


class Courier:
    """Ships `log` to the collector at an address, and hears its answers.

    Attributes:
        shipment: how far it has come.
        heard_at: monotonic time of the newest message from the collector; None before the first.
        collector: the 16 bytes of the collector's instance; empty before its first ack.
    """

    def __init__(self, name: bytes, log: Log) -> None:
        self.shipment = Shipment(log)
        self.heard_at: float | None = None
        self.collector = b""
        self._name = name
        self._log = log
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._push: zmq.Socket[bytes] | None = None
        self._control: zmq.Socket[bytes] | None = None

    @property
    def is_connected(self) -> bool:
        """True between `connect` and `disconnect`; it tells nothing of the other side."""
        return self._push is not None

    def connect(self, address: Address) -> None:
        """Begins to speak with the collector at `address`, whether it is there yet or not."""
        self.disconnect()
        context = self._context or zmq.Context(io_threads=1)
        self._context = context
        push, control = context.socket(zmq.PUSH), context.socket(zmq.SUB)
        for socket in (push, control):
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.RECONNECT_IVL, _RECONNECT_MS)
            socket.set(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
            socket.set(zmq.IPV6, int(":" in address.host))
        control.set(zmq.MAXMSGSIZE, MAX_CONTROL_BYTES)
        push.set(zmq.SNDHWM, SEND_HIGH_WATER_MARK)
        control.set(zmq.SUBSCRIBE, self._name)
        self._push, self._control = push, control
        push.connect(address.data)
        control.connect(address.control)

    def disconnect(self) -> None:
        """Leaves the collector; what is in flight will be sent again after the next `connect`."""
        for socket in (self._push, self._control):
            if socket is not None:
                socket.close(0)
        self._push = self._control = None
        self.heard_at = None
        self.shipment.restart()

    def close(self) -> None:
        """Ends the courier; never waits for the network."""
        self.disconnect()
        if self._context is not None:
            self._context.term()
            self._context = None

    def beat(self, status: Mapping[str, Any]) -> None:
        """Sends a sign of life, unless the socket's queue is full."""
        beat = Beat(self._name, self._log.end, self._log.base, time.time_ns(), status)
        self._send(*pack_beat(beat))

    def pump(self, *, is_urgent: bool = False) -> bool:
        """Sends what the window allows; True where more would have been sent than it does. `is_urgent`: to the end.

        What is logged while it sends is left for the next time, unless it is much: else a steady training would get
        a message of one event behind each of many.
        """
        while (parcel := self.shipment.next(time.monotonic())) is not None:
            header = pack_batch_header(
                self._name, parcel.first_seq, parcel.count, parcel.base, time.time_ns(), is_urgent=is_urgent
            )
            if not self._send(header, parcel.body):
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
        if not hear or self._control is None:
            # Many times cheaper than ZeroMQ's own poll, and what a steady training waits in.
            return wait_readable(wake_fd, timeout_s)
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        if wake_fd is not None:
            poller.register(wake_fd, zmq.POLLIN)
        return wake_fd in dict(poller.poll(round(timeout_s * 1000)))

    def hear(self) -> list[Command | Refused]:
        """Takes in what the collector has said; acks move the shipment, the rest is for the caller."""
        others: list[Command | Refused] = []
        # Asked before each look: an empty one would give up the GIL, and a busy training takes 5 ms to give it back.
        while self._control is not None and cast("int", self._control.get(zmq.EVENTS)) & zmq.POLLIN:
            try:
                frames = self._control.recv_multipart(zmq.NOBLOCK)
                message = unpack_down(frames[-1])
            except zmq.Again:
                break
            except ProtocolError:
                continue
            now = time.monotonic()
            self.heard_at = now
            if isinstance(message, Ack):
                self.collector = message.collector
                self.shipment.on_ack(message, now)
            elif isinstance(message, Command | Refused):
                others.append(message)
        return others

    def _send(self, header: bytes, body: bytes) -> bool:
        if self._push is None:
            return False
        try:
            self._push.send_multipart((header, body), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True
