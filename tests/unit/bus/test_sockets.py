"""The collector's sockets: everything that arrives is given, at once, whatever strangers send."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import zmq

from allranks_bus.addresses import Address
from allranks_bus.sockets import CollectorSockets, Wakeups
from allranks_bus.wire import MAX_MESSAGE_BYTES, Ack, Command, Down, Frame, Refused, unpack_down

WRITER = bytes(range(16))
_LIMIT = 1 << 20

pytestmark = pytest.mark.anyio


@contextlib.contextmanager
def _connected(kind: int, endpoint: str) -> Generator[zmq.Socket[bytes]]:
    """A plain ZeroMQ socket of a peer; what it has sent is sent before it closes."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    peer = context.socket(kind)
    peer.set(zmq.LINGER, 20_000)
    try:
        peer.connect(endpoint)
        yield peer
    finally:
        peer.close()
        context.term()


async def _receive(sockets: CollectorSockets, count: int) -> list[list[Frame]]:
    messages: list[list[Frame]] = []
    with anyio.fail_after(60):
        while len(messages) < count:
            messages += await sockets.receive(_LIMIT)
    return messages


async def test_messages_arrive_in_order(address: Address) -> None:
    """With all their frames."""
    async with CollectorSockets(address.data, address.control) as sockets:
        with _connected(zmq.PUSH, address.data) as push:
            sent = [[b"header %d" % number, b"body"] for number in range(500)]
            for frames in sent:
                await anyio.to_thread.run_sync(push.send_multipart, frames)
            assert await _receive(sockets, 500) == sent
        assert sockets.receive_nowait(_LIMIT) == []


async def test_small_messages_that_come_one_by_one_are_taken_many_at_a_time(address: Address) -> None:
    """A wake-up for each costs more than what is done with it."""
    count = 400

    def send(push: zmq.Socket[bytes]) -> None:
        for number in range(count):
            push.send_multipart((b"header", b"%d" % number))
            time.sleep(0.0005)

    begun, came, turns = time.monotonic(), 0, 0
    async with CollectorSockets(address.data, address.control) as sockets, anyio.create_task_group() as group:
        with _connected(zmq.PUSH, address.data) as push:
            group.start_soon(anyio.to_thread.run_sync, send, push)
            with anyio.fail_after(60):
                while came < count:
                    came += len(await sockets.receive(_LIMIT))
                    turns += 1
    assert turns <= 64 + 75 * (time.monotonic() - begun)


def test_rare_wake_ups_do_not_wait() -> None:
    wakeups = Wakeups()
    assert {wakeups.pause_s(0.021 * number) for number in range(1, 1000)} == {0.0}


def test_wake_ups_that_come_too_often_wait_until_they_are_due() -> None:
    wakeups = Wakeups()
    now = 100.0
    for _ in range(1000):
        now += wakeups.pause_s(now)
    assert 19.0 < now - 100.0 < 20.0


async def test_many_writers_under_load_lose_nothing(address: Address) -> None:
    """Eight of them, each in order."""
    writers, each = 8, 2000

    def write(writer: int) -> None:
        with _connected(zmq.PUSH, address.data) as push:
            for number in range(each):
                push.send_multipart((b"%d" % writer, b"%d" % number))
            # Over ipc, ZeroMQ loses what a peer has sent but not yet read when it closes (libzmq issue 4660); writers
            # close after the last ack.
            everything_came.wait(60)

    everything_came = threading.Event()
    seen: dict[bytes, list[int]] = {}
    async with CollectorSockets(address.data, address.control) as sockets, anyio.create_task_group() as group:
        for writer in range(writers):
            group.start_soon(anyio.to_thread.run_sync, write, writer)
        try:
            for name, number in await _receive(sockets, writers * each):
                seen.setdefault(bytes(name), []).append(int(number))
        finally:
            everything_came.set()
    assert seen == {b"%d" % writer: list(range(each)) for writer in range(writers)}


async def test_large_frames_are_used_where_they_lie(tcp_address: Address) -> None:
    """For as long as somebody has them, whatever comes meanwhile; and a message may have small ones beside them."""
    bodies = [bytes([number]) * 1_000_000 for number in range(20)]
    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets:
        with _connected(zmq.PUSH, tcp_address.data) as push:
            for body in bodies:
                await anyio.to_thread.run_sync(push.send_multipart, [b"header", body, b"end"])
            messages = await _receive(sockets, len(bodies))
    assert messages == [[b"header", body, b"end"] for body in bodies]
    assert {type(frame) for message in messages for frame in message} == {bytes, memoryview}


async def test_one_gulp_is_bounded(tcp_address: Address) -> None:
    """What is over the limit waits for the next call."""
    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets:
        with _connected(zmq.PUSH, tcp_address.data) as push:
            for _ in range(10):
                push.send_multipart((b"", bytes(1000)))
            gulps: list[int] = []
            with anyio.fail_after(60):
                while sum(gulps) < 10:
                    gulps.append(len(await sockets.receive(2500)))
    assert max(gulps) <= 3


async def test_no_wake_up_is_lost(tcp_address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of tiny bursts, each answered before the next: an edge that is missed would wait for ever."""
    monkeypatch.setattr("allranks_bus.sockets._LOOK_AGAIN_S", 3600.0)
    monkeypatch.setattr("allranks_bus.sockets._WAKEUPS_PER_S", 1e9)
    rounds = 3000
    answered = threading.Semaphore(0)

    def write() -> None:
        with _connected(zmq.PUSH, tcp_address.data) as push:
            for number in range(rounds):
                for _ in range(1 + number % 3):
                    push.send(b"x")
                if not answered.acquire(timeout=60):
                    return

    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets, anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, write)
        for number in range(rounds):
            assert len(await _receive(sockets, 1 + number % 3)) == 1 + number % 3
            answered.release()


async def test_receive_can_be_cancelled(tcp_address: Address) -> None:
    """And nothing is lost by it."""
    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets:
        with anyio.move_on_after(0.05) as scope:
            await sockets.receive(_LIMIT)
        assert scope.cancelled_caught
        with _connected(zmq.PUSH, tcp_address.data) as push:
            push.send(b"after")
            assert await _receive(sockets, 1) == [[b"after"]]


async def test_only_the_named_writer_hears(address: Address) -> None:
    """The topic is its name; what nobody listens to is gone."""
    other = bytes(16)
    messages: list[Down] = [
        Ack(7, other, 1),
        Ack(3, other, 1, resend=True),
        Command("dump", {"a": 1}),
        Refused("why"),
    ]
    async with CollectorSockets(address.data, address.control) as sockets:
        sockets.tell(other, Refused("nobody listens"))
        with _connected(zmq.SUB, address.control) as control:
            control.set(zmq.SUBSCRIBE, WRITER)
            with anyio.fail_after(60):
                while not control.poll(0):  # until the subscription has arrived
                    sockets.tell(WRITER, Command("are you there", {}))
                    await anyio.sleep(0.005)
            for message in messages:
                sockets.tell(other, Refused("not yours"))
                sockets.tell(WRITER, message)
            heard: list[Down] = []
            while len(heard) < len(messages):
                frames = await anyio.to_thread.run_sync(control.recv_multipart)
                assert frames[0] == WRITER
                message = unpack_down(frames[1])
                if message != Command("are you there", {}):
                    heard.append(message)
    assert heard == messages


@pytest.mark.parametrize("port", ["data", "control"])
async def test_hostile_bytes_do_no_harm(tcp_address: Address, port: str) -> None:
    """Neither what is no ZMTP, nor half a greeting, nor a connection that says nothing; writers go on."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31)
    hostile = [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 5000,
        b"\xff" * 5000,
        greeting,
        greeting[:20],
        greeting + b"\x04\xff\xff\xff\xff\xff\xff\xff\xff",
        greeting + b"\x02" + (1 << 62).to_bytes(8, "big") + b"x" * 1000,
        greeting + b"\x04\x26\x05READY" + b"\xff" * 64,
    ]
    where = ("127.0.0.1", tcp_address.port + (port == "control"))
    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets:
        with contextlib.ExitStack() as opened, _connected(zmq.PUSH, tcp_address.data) as push:
            push.send(b"before")
            assert await _receive(sockets, 1) == [[b"before"]]
            for content in hostile * 3:
                stranger = opened.enter_context(socket.create_connection(where, timeout=60))
                with contextlib.suppress(OSError):
                    stranger.sendall(content)
            push.send(b"after")
            assert await _receive(sockets, 1) == [[b"after"]]


async def test_a_message_that_is_too_large_is_cut_off(tcp_address: Address) -> None:
    """It never arrives; the largest that is allowed does, and others do not notice."""
    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets:
        with _connected(zmq.PUSH, tcp_address.data) as hostile, _connected(zmq.PUSH, tcp_address.data) as push:
            hostile.set(zmq.LINGER, 0)
            hostile.send(bytes(MAX_MESSAGE_BYTES + 1))
            push.send(bytes(MAX_MESSAGE_BYTES))
            push.send(b"after")
            assert [len(frames[0]) for frames in await _receive(sockets, 2)] == [MAX_MESSAGE_BYTES, 5]
            assert sockets.receive_nowait(_LIMIT) == []


# The bytes of ZMTP 3.0 (rfc.zeromq.org/spec/23) that a SUB socket says first: its greeting, and its READY.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(55, b"\0")
_READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"


@contextlib.contextmanager
def _subscriber(address: Address) -> Generator[socket.socket]:
    """A connection to the control socket that has shaken hands, by hand: it keeps to no rule from here on."""
    with socket.create_connection(("127.0.0.1", address.port + 1), timeout=60) as peer:
        peer.sendall(_GREETING)
        told = b""
        while not told.endswith(b"\x03PUB"):
            told += peer.recv(4096)
        peer.sendall(_READY)
        yield peer


async def test_a_subscription_that_is_too_long_is_cut_off(tcp_address: Address) -> None:
    """A topic is sixteen bytes; what is announced to be far longer ends the connection."""

    def read_to_the_end(peer: socket.socket) -> bytes:
        with contextlib.suppress(ConnectionError):
            return peer.recv(4096)
        return b""

    async with CollectorSockets(tcp_address.data, tcp_address.control):
        with _subscriber(tcp_address) as peer:
            peer.sendall(b"\x02" + (1 << 20).to_bytes(8, "big") + b"\x01" + bytes(4000))
            assert await anyio.to_thread.run_sync(read_to_the_end, peer) == b""


async def test_a_subscriber_of_another_implementation_hears(tcp_address: Address) -> None:
    """Of an older ZMTP too, which subscribes by a message."""
    async with CollectorSockets(tcp_address.data, tcp_address.control) as sockets:
        with _subscriber(tcp_address) as peer:
            peer.sendall(b"\x00\x11\x01" + WRITER)
            peer.settimeout(0.02)
            told = b""
            with anyio.fail_after(60):
                while WRITER not in told:
                    sockets.tell(WRITER, Refused("heard"))
                    await anyio.sleep(0)
                    with contextlib.suppress(TimeoutError):
                        told += peer.recv(4096)


@pytest.mark.parametrize("taken", ["data", "control"])
async def test_a_port_in_use_is_an_error_that_names_it(tcp_address: Address, taken: str) -> None:
    """And nothing stays bound."""
    endpoint = tcp_address.data if taken == "data" else tcp_address.control
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(endpoint.rpartition(":")[2])))
        other.listen()
        with pytest.raises(OSError, match="Address already in use") as caught:
            CollectorSockets(tcp_address.data, tcp_address.control)
    assert caught.value.errno == errno.EADDRINUSE
    assert endpoint in str(caught.value)
    async with CollectorSockets(tcp_address.data, tcp_address.control):
        pass


async def test_an_ipc_path_in_use_is_an_error(tmp_path: Path) -> None:
    """ZeroMQ would take it away from the collector that listens there, which would never hear anything again."""
    address = Address("ipc", path=str(tmp_path / "data"))
    async with CollectorSockets(address.data, address.control) as sockets:
        with pytest.raises(OSError, match="Address already in use"):
            CollectorSockets(address.data, address.control)
        with _connected(zmq.PUSH, address.data) as push:
            push.send(b"still heard")
            assert await _receive(sockets, 1) == [[b"still heard"]]


async def test_an_ipc_path_that_a_dead_collector_left_is_taken(tmp_path: Path) -> None:
    """Nobody listens there any more."""
    address = Address("ipc", path=str(tmp_path / "data"))
    for path in (address.path, f"{address.path}.control"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
    async with CollectorSockets(address.data, address.control) as sockets:
        with _connected(zmq.PUSH, address.data) as push:
            push.send(b"hello")
            assert await _receive(sockets, 1) == [[b"hello"]]


@pytest.mark.parametrize("endpoint", ["tcp://192.0.2.1:5571", "tcp://no.such.host.invalid:1", "ipc:///no/such/dir/x"])
async def test_an_endpoint_that_is_not_here_is_an_error(endpoint: str) -> None:
    """With the endpoint in its text."""
    with pytest.raises(OSError, match=r"Cannot assign|No such") as caught:
        CollectorSockets(endpoint, "tcp://127.0.0.1:*")
    assert endpoint in str(caught.value)


async def test_a_free_port_is_told() -> None:
    """Port 0 takes one."""
    async with CollectorSockets("tcp://127.0.0.1:0", "tcp://127.0.0.1:0") as sockets:
        assert int(sockets.data_endpoint.rpartition(":")[2]) > 0


async def test_close_does_not_wait_for_peers(address: Address) -> None:
    """Not for one that does not take what was sent to it, either."""
    sockets = CollectorSockets(address.data, address.control)
    with _connected(zmq.SUB, address.control) as control:
        control.set(zmq.SUBSCRIBE, b"")
        control.set(zmq.RCVHWM, 1)
        with anyio.fail_after(60):
            while not control.poll(0):  # until the subscription has arrived
                sockets.tell(WRITER, Refused("are you there"))
                await anyio.sleep(0.005)
        for _ in range(1000):
            sockets.tell(WRITER, Refused("x" * 10_000))
        began = time.monotonic()
        sockets.close()
        assert time.monotonic() - began < 20.0  # for ever, if it waited
