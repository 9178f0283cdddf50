"""The mean of a vector over all ranks, over plain TCP: rank 0 is the hub, and every wait has a deadline.

    rank r ── HELLO (rank, world) ──►  rank 0        once, in `join`
    rank r ── VECTOR ───────────────►  rank 0        each `mean`: rank 0 adds in rank order, divides,
    rank r ◄── VECTOR ───────────────  rank 0        and gives all the same bytes: ranks stay bit-identical
    rank r ◄── ERROR (text) ─────────  rank 0        instead, when a rank is gone or late: all learn which

A frame is `magic 4 · kind u8 · 3 pad · length u64 BE`, then the payload; numbers are f64 little endian.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

MAGIC = b"ARDM"
HELLO, VECTOR, ERROR = 1, 2, 3
MAX_PAYLOAD_BYTES = 1 << 30

_HEADER = struct.Struct("!4sBxxxQ")
_HELLO = struct.Struct("!II")
_HELLO_TIMEOUT_S = 2.0  # for a stranger that connects and says nothing
_RETRY_S = 0.05
# The hub's deadline ends first, so that all ranks hear from it which rank is missing.
_SPOKE_PATIENCE = 1.25
_SPOKE_EXTRA_S = 2.0


class PeerError(RuntimeError):
    """Another rank is gone, late, or not in step; the job cannot go on."""


class Group(Protocol):
    """All ranks, as one of them sees them."""

    def mean(self, vector: Vector) -> Vector:
        """The mean of all ranks' vectors, the same bits on every rank. Raises PeerError."""
        ...

    def close(self) -> None:
        """Let the others go."""
        ...


def join(rank: int, world_size: int, host: str, port: int, timeout_s: float) -> Group:
    """Meet all other ranks, and return once they are all there.

    Args:
        rank: this process's; rank 0 listens on host and port.
        world_size: how many ranks there are.
        host: where rank 0 is.
        port: where rank 0 listens.
        timeout_s: longest wait for the others, now and in each `mean`.

    Raises:
        PeerError: not all came in time, or somebody else is at this address.
    """
    if world_size == 1:
        return _Alone()
    if rank == 0:
        return _Hub(_gather(world_size, host, port, timeout_s), timeout_s)
    return _Spoke(_reach(rank, world_size, host, port, timeout_s), timeout_s)


class _Alone:
    def mean(self, vector: Vector) -> Vector:
        return np.array(vector)

    def close(self) -> None:
        pass


class _Hub:
    def __init__(self, peers: dict[int, socket.socket], timeout_s: float) -> None:
        self._peers = peers
        self._timeout_s = timeout_s

    def mean(self, vector: Vector) -> Vector:
        deadline = time.monotonic() + self._timeout_s
        total = np.array(vector)
        try:
            for rank, peer in sorted(self._peers.items()):
                theirs = receive_vector(peer, deadline, f"rank {rank}")
                if theirs.shape != total.shape:
                    raise PeerError(f"rank {rank} sent {theirs.size} numbers, and rank 0 has {total.size}")
                total += theirs
            total /= len(self._peers) + 1
            answer = pack(VECTOR, total.astype("<f8", copy=False).tobytes())
            for rank, peer in sorted(self._peers.items()):
                send(peer, answer, deadline, f"rank {rank}")
        except PeerError as error:
            self._tell(str(error))
            raise
        return total

    def _tell(self, text: str) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(PeerError):
                send(peer, pack(ERROR, text.encode()), time.monotonic() + 1.0, "a rank")

    def close(self) -> None:
        for peer in self._peers.values():
            peer.close()


class _Spoke:
    def __init__(self, hub: socket.socket, timeout_s: float) -> None:
        self._hub = hub
        self._patience_s = timeout_s * _SPOKE_PATIENCE + _SPOKE_EXTRA_S

    def mean(self, vector: Vector) -> Vector:
        deadline = time.monotonic() + self._patience_s
        send(self._hub, pack(VECTOR, vector.astype("<f8", copy=False).tobytes()), deadline, "rank 0")
        return receive_vector(self._hub, deadline, "rank 0")

    def close(self) -> None:
        self._hub.close()


def pack(kind: int, payload: bytes) -> bytes:
    """One frame."""
    return _HEADER.pack(MAGIC, kind, len(payload)) + payload


def unpack_header(header: bytes) -> tuple[int, int]:
    """The kind of the frame that begins with `header`, and the bytes of its payload.

    Raises:
        PeerError: this is no frame of ours, or one that is too large to be true.
    """
    magic, kind, length = _HEADER.unpack(header)
    if magic != MAGIC or length > MAX_PAYLOAD_BYTES:
        raise PeerError("something that is no rank of this demo answers on its port")
    return kind, length


def send(peer: socket.socket, frame: bytes, deadline: float, who: str) -> None:
    """Send all of `frame` before the monotonic time `deadline`. Raises PeerError, which names `who`."""
    try:
        peer.settimeout(max(deadline - time.monotonic(), 0.001))
        peer.sendall(frame)
    except TimeoutError:
        raise PeerError(f"{who} takes nothing any more: it is stuck") from None
    except OSError as error:
        raise PeerError(f"{who} is gone ({error.strerror or error})") from None


def receive(peer: socket.socket, deadline: float, who: str) -> tuple[int, bytes]:
    """The next frame's kind and payload, before the monotonic time `deadline`. Raises PeerError."""
    kind, length = unpack_header(_exactly(peer, _HEADER.size, deadline, who))
    return kind, _exactly(peer, length, deadline, who)


def receive_vector(peer: socket.socket, deadline: float, who: str) -> Vector:
    """The next vector; an ERROR that comes in its place is raised as PeerError."""
    kind, payload = receive(peer, deadline, who)
    if kind == ERROR:
        raise PeerError(payload.decode(errors="replace"))
    if kind != VECTOR or len(payload) % 8:
        raise PeerError(f"{who} sent a frame of kind {kind} where a vector was due")
    return np.frombuffer(payload, dtype="<f8").astype(np.float64)


def _exactly(peer: socket.socket, count: int, deadline: float, who: str) -> bytes:
    buffer = bytearray(count)
    view, got, began = memoryview(buffer), 0, time.monotonic()
    while got < count:
        try:
            peer.settimeout(max(deadline - time.monotonic(), 0.001))
            part = peer.recv_into(view[got:])
        except TimeoutError:
            waited = time.monotonic() - began
            raise PeerError(f"{who} sent nothing for {waited:.0f} s: it is stuck, or too slow") from None
        except OSError as error:
            raise PeerError(f"{who} is gone ({error.strerror or error})") from None
        if part == 0:
            raise PeerError(f"{who} is gone (it closed the connection)")
        got += part
    return bytes(buffer)


def _gather(world_size: int, host: str, port: int, timeout_s: float) -> dict[int, socket.socket]:
    deadline = time.monotonic() + timeout_s
    peers: dict[int, socket.socket] = {}
    try:
        with socket.create_server((host, port), backlog=world_size) as listener:
            while len(peers) < world_size - 1:
                listener.settimeout(max(deadline - time.monotonic(), 0.001))
                peer, _ = listener.accept()
                rank = _greet(peer, world_size, peers)
                if rank is None:
                    peer.close()
                else:
                    peers[rank] = peer
    except TimeoutError:
        late = sorted(set(range(1, world_size)) - set(peers))
        raise PeerError(f"rank {', '.join(map(str, late))} did not come within {timeout_s:g} s") from None
    except OSError as error:
        raise PeerError(f"rank 0 cannot listen on {host}:{port} ({error.strerror}): is it taken?") from None
    return peers


def _greet(peer: socket.socket, world_size: int, peers: dict[int, socket.socket]) -> int | None:
    """The rank that connected; None for a stranger, whom rank 0 does not let disturb it."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        kind, payload = receive(peer, time.monotonic() + _HELLO_TIMEOUT_S, "a peer")
    except PeerError:
        return None
    if kind != HELLO or len(payload) != _HELLO.size:
        return None
    rank, world = _HELLO.unpack(payload)
    return rank if world == world_size and 0 < rank < world_size and rank not in peers else None


def _reach(rank: int, world_size: int, host: str, port: int, timeout_s: float) -> socket.socket:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            hub = socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), 0.001))
        except OSError as error:
            # Rank 0 may not listen yet: ranks start in any order.
            if time.monotonic() > deadline - _RETRY_S:
                text = f"rank 0 does not answer on {host}:{port} within {timeout_s:g} s ({error})"
                raise PeerError(text) from None
            time.sleep(_RETRY_S)
            continue
        if hub.getsockname() != hub.getpeername():
            break
        # The kernel gave this socket the very port it calls, and TCP let it connect to itself.
        hub.close()
    hub.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    send(hub, pack(HELLO, _HELLO.pack(rank, world_size)), deadline, "rank 0")
    return hub
