"""The link to a collector: PUSH up and SUB down, for one sender, from a plain thread.

It belongs to the thread that made it, and must not outlive a fork.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

import zmq

from allranks_bus.addresses import Address
from allranks_bus.errors import ProtocolError
from allranks_bus.wire import MAX_CONTROL_BYTES, Down, unpack_down

_RECONNECT_MS, _RECONNECT_MAX_MS = 100, 2000


class Link:
    """Speaks to the collector at an address in the name of a sender, and hears what that one is told.

    Args:
        name: the sender's 16 bytes.
        high_water_mark: how many messages may wait in ZeroMQ's queue.

    Attributes:
        heard_at: monotonic time of the newest message from the collector; None before the first.
    """

    def __init__(self, name: bytes, high_water_mark: int) -> None:
        self.heard_at: float | None = None
        self._name = name
        self._high_water_mark = high_water_mark
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
        push.set(zmq.SNDHWM, self._high_water_mark)
        control.set(zmq.SUBSCRIBE, self._name)
        self._push, self._control = push, control
        push.connect(address.data)
        control.connect(address.control)

    def disconnect(self) -> None:
        """Leaves the collector; what is in flight is lost."""
        for socket in (self._push, self._control):
            if socket is not None:
                socket.close(0)
        self._push = self._control = None
        self.heard_at = None

    def close(self) -> None:
        """Ends the link; never waits for the network."""
        self.disconnect()
        if self._context is not None:
            self._context.term()
            self._context = None

    def send(self, header: bytes, body: bytes, *, copy: bool = True) -> bool:
        """Puts a message into the queue; False where that is full, or nothing is connected.

        Args:
            copy: False leaves `body` where it is until it is sent, which is worth it for a large one.
        """
        if self._push is None:
            return False
        try:
            self._push.send_multipart((header, body), zmq.NOBLOCK, copy=copy)
        except zmq.Again:
            return False
        return True

    def hear(self) -> Iterator[Down]:
        """What the collector has said."""
        # Asked before each look: an empty one would give up the GIL, and a busy training takes 5 ms to give it back.
        while self._control is not None and cast("int", self._control.get(zmq.EVENTS)) & zmq.POLLIN:
            try:
                frames = self._control.recv_multipart(zmq.NOBLOCK)
                message = unpack_down(frames[-1])
            except zmq.Again:
                return
            except ProtocolError:
                continue
            self.heard_at = time.monotonic()
            yield message

    def wait(self, timeout_s: float, wake_fd: int | None = None) -> bool:
        """Returns when the collector has said something, the time is over, or `wake_fd` is readable: then True."""
        poller = zmq.Poller()
        if self._control is not None:
            poller.register(self._control, zmq.POLLIN)
        if wake_fd is not None:
            poller.register(wake_fd, zmq.POLLIN)
        return wake_fd in dict(poller.poll(round(timeout_s * 1000)))
