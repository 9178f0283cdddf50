"""The collector's two sockets, on anyio: PULL drained in gulps, PUB that never waits.

`recv` with NOBLOCK until EAGAIN, then one wait on the socket's file descriptor, moves twenty times more messages than
a wait per message. The descriptor is edge-triggered: it becomes readable when the state changes, not while messages
wait, so EVENTS is looked at before every wait (zmq_getsockopt(3), ZMQ_FD). Where thousands of writers send one small
message after the other, a wake-up for each would cost more than all that is done with it: then they gather for some
milliseconds.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from types import TracebackType
from typing import cast

import anyio
import zmq

from allranks_bus.wire import MAX_MESSAGE_BYTES, Down, Frame, pack_down

# A batch is about 128 KiB; what a slow collector cannot take yet stays in the writers' spools, not here.
RECEIVE_HIGH_WATER_MARK = 16
# A frame of this size is used where ZeroMQ has put it; for smaller ones a copy is cheaper than that.
_LARGE_BYTES = 256 * 1024
_BACKLOG = 4096
_MAX_SOCKETS = 65_536
# A lost wake-up would stall the ingest for ever; so it looks again by itself.
_LOOK_AGAIN_S = 0.5
_NOBLOCK, _NOBLOCK_MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
# So many wake-ups come as they like; beyond that, so many a second.
_WAKEUPS, _WAKEUPS_PER_S = 32, 50.0


class Wakeups:
    """How long to let messages gather before the next wake-up. Pure: time is passed in."""

    def __init__(self) -> None:
        self._left = float(_WAKEUPS)
        self._at = 0.0

    def pause_s(self, now: float) -> float:
        """Counts a wake-up at `now`, and says how long to wait before it; 0 for those that are rare."""
        self._left = min(_WAKEUPS, self._left + (now - self._at) * _WAKEUPS_PER_S) - 1
        self._at = now
        return max(0.0, -self._left / _WAKEUPS_PER_S)


class CollectorSockets:
    """PULL for data and PUB for control, bound together; an async context manager.

    Args:
        data, control: endpoints to bind; a port of 0 takes a free one.

    Raises:
        OSError: an endpoint is in use, or not of this machine.
    """

    def __init__(self, data: str, control: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, _MAX_SOCKETS)
        self._pull, self._pub = self._context.socket(zmq.PULL), self._context.socket(zmq.PUB)
        self._pull.set(zmq.RCVHWM, RECEIVE_HIGH_WATER_MARK)
        self._pull.set(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        # Subscriptions are 17 bytes; nothing longer has a reason to come in here.
        self._pub.set(zmq.MAXMSGSIZE, 4096)
        self._pub.set(zmq.SNDHWM, 10_000)
        for end in (self._pull, self._pub):
            end.set(zmq.LINGER, 0)
            end.set(zmq.BACKLOG, _BACKLOG)
            end.set(zmq.IPV6, int("[" in data))
        try:
            for end, endpoint in ((self._pull, data), (self._pub, control)):
                _bind(end, endpoint)
        except OSError:
            self._context.destroy(0)
            raise
        self.data_endpoint = cast("bytes", self._pull.get(zmq.LAST_ENDPOINT)).decode()
        self._fd = cast("int", self._pull.get(zmq.FD))
        self._wakeups = Wakeups()

    async def receive(self, limit_bytes: int) -> list[list[Frame]]:
        """All messages that wait, at least one, until their bodies have more than `limit_bytes`."""
        while True:
            messages = self.receive_nowait(limit_bytes)
            if messages:
                return messages
            if not cast("int", self._pull.get(zmq.EVENTS)) & zmq.POLLIN:
                with anyio.move_on_after(_LOOK_AGAIN_S):
                    await anyio.wait_readable(self._fd)
                pause_s = self._wakeups.pause_s(time.monotonic())
                if pause_s:
                    await anyio.sleep(pause_s)

    def receive_nowait(self, limit_bytes: int) -> list[list[Frame]]:
        """The messages that wait, perhaps none."""
        messages: list[list[Frame]] = []
        size = 0
        receive = self._pull.recv
        try:
            while size <= limit_bytes:
                frames: list[Frame] = []
                has_more = True
                while has_more:
                    frame = receive(zmq.NOBLOCK, copy=False)
                    has_more = frame.more
                    frames.append(frame.buffer if len(frame) >= _LARGE_BYTES else frame.bytes)
                    size += len(frame)
                messages.append(frames)
        except zmq.Again:
            pass
        return messages

    def tell(self, writer: bytes, message: Down) -> None:
        """Sends `message` to a writer; it is lost where the writer does not listen, and nobody waits."""
        # As send_multipart does, for thousands a second.
        self._pub.send(writer, _NOBLOCK_MORE)
        self._pub.send(pack_down(message), _NOBLOCK)

    async def __aenter__(self) -> CollectorSockets:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes both; what was received and not acked will be sent again."""
        self._context.destroy(0)


def _bind(end: zmq.Socket[bytes], endpoint: str) -> None:
    """Binds, with the endpoint in the error's text."""
    # ZeroMQ removes the file of an ipc endpoint before it binds, and so takes it away from whoever listens there.
    if endpoint.startswith("ipc://") and _is_listened_on(endpoint.removeprefix("ipc://")):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), endpoint)
    try:
        end.bind(endpoint)
    except zmq.ZMQError as error:
        raise OSError(error.errno, error.strerror, endpoint) from error


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as visitor:
        try:
            visitor.connect(path)
        except OSError:
            return False
        return True
