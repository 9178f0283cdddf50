"""The courier over real sockets: a log arrives whole, whoever comes late, goes away or talks nonsense."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import zmq

from allranks_bus import records
from allranks_bus.addresses import Address
from allranks_bus.courier import Courier
from allranks_bus.spool import SpoolWriter
from allranks_bus.wire import Ack, Batch, Beat, Command, Down, Refused, pack_down, unpack_up

NAME = bytes(range(16))
COLLECTOR = b"c" * 16
_PATIENCE_S = 60.0


@pytest.fixture
def log(tmp_path: Path) -> Generator[SpoolWriter]:
    """A spool with a hundred records, one of which is the opening."""
    writer = SpoolWriter(tmp_path / "root", NAME, lambda: b"opening")
    for number in range(99):
        writer.append(b"%d" % number)
    yield writer
    writer.close()


class PlainCollector:
    """The other side, in a few lines of plain ZeroMQ."""

    def __init__(self, address: Address) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pull, self._pub = self._context.socket(zmq.PULL), self._context.socket(zmq.PUB)
        self._pull.bind(address.data)
        self._pub.bind(address.control)

    def receive(self) -> Batch | Beat | None:
        """What waits, if anything."""
        try:
            message = unpack_up(self._pull.recv_multipart(zmq.NOBLOCK))
            assert isinstance(message, Batch | Beat)
            return message
        except zmq.Again:
            return None

    def tell(self, message: Down) -> None:
        self._pub.send_multipart((NAME, pack_down(message)))

    def tell_raw(self, *frames: bytes) -> None:
        self._pub.send_multipart(frames)

    def close(self) -> None:
        self._context.destroy(0)


@contextlib.contextmanager
def _collector(address: Address) -> Generator[PlainCollector]:
    with contextlib.closing(PlainCollector(address)) as collector:
        yield collector


@contextlib.contextmanager
def _courier(log: SpoolWriter, address: Address) -> Generator[Courier]:
    with contextlib.closing(Courier(NAME, log)) as courier:
        courier.connect(address)
        yield courier


def _meet(courier: Courier, collector: PlainCollector) -> None:
    """Until each has heard the other: a subscription takes a moment to arrive."""
    deadline = time.monotonic() + _PATIENCE_S
    while courier.heard_at is None:
        assert time.monotonic() < deadline
        collector.tell(Command("hello", {}))
        courier.wait(0.01)
        courier.hear()


def _ship(courier: Courier, collector: PlainCollector, position: int = 0) -> list[bytes]:
    """Ships until all is acked; what the collector stored, from `position` on."""
    stored: list[bytes] = []
    deadline = time.monotonic() + _PATIENCE_S
    while not courier.shipment.is_done:
        assert time.monotonic() < deadline
        courier.pump()
        message = collector.receive()
        if isinstance(message, Batch):
            if message.first_seq <= position < message.first_seq + message.count:
                payloads = [message.body[begin:end] for begin, end in records.scan(message.body)]
                stored += payloads[position - message.first_seq :]
                position = message.first_seq + message.count
            collector.tell(Ack(position, COLLECTOR, time.time_ns()))
        courier.wait(0.01)
        courier.hear()
    return stored


def test_a_log_arrives_whole(log: SpoolWriter, address: Address) -> None:
    """And the courier knows by whom it is stored."""
    with _collector(address) as collector, _courier(log, address) as courier:
        _meet(courier, collector)
        assert _ship(courier, collector) == [b"opening", *[b"%d" % number for number in range(99)]]
        assert courier.collector == COLLECTOR
        assert courier.shipment.resends == 0


def test_a_collector_that_comes_late_gets_everything(log: SpoolWriter, address: Address) -> None:
    """What was sent before it was there is sent again at the latest when no ack has come."""
    with _courier(log, address) as courier:
        courier.pump()
        with _collector(address) as collector:
            _meet(courier, collector)
            assert len(_ship(courier, collector)) == 100


def test_a_collector_that_is_restarted_gets_the_rest(log: SpoolWriter, address: Address) -> None:
    """Nothing that is acked is sent again."""
    with _courier(log, address) as courier:
        with _collector(address) as first:
            _meet(courier, first)
            assert len(_ship(courier, first)) == 100
        log.append(b"in between")
        with _collector(address) as second:
            assert _ship(courier, second, position=100) == [b"in between"]


def test_a_beat_tells_where_the_log_is(log: SpoolWriter, address: Address) -> None:
    """With the status that it was given."""
    with _collector(address) as collector, _courier(log, address) as courier:
        _meet(courier, collector)
        courier.beat({"step": 7})
        deadline = time.monotonic() + _PATIENCE_S
        while (message := collector.receive()) is None:
            assert time.monotonic() < deadline
        assert isinstance(message, Beat)
        assert (message.writer, message.next_seq, message.base) == (NAME, 100, 0)
        assert message.status == {"step": 7}


def test_what_is_no_ack_is_for_the_caller(log: SpoolWriter, address: Address) -> None:
    """Commands and refusals, in order; nonsense is passed over, and is no sign of life."""
    with _collector(address) as collector, _courier(log, address) as courier:
        _meet(courier, collector)
        for frames in ((NAME,), (NAME, b"\xc1"), (NAME, b"", b""), (NAME, b"\x92\x02\x01"), (NAME, b"\x91" * 1000)):
            collector.tell_raw(*frames)
        collector.tell(Command("dump", {"all": True}))
        collector.tell(Refused("why"))
        heard: list[Command | Refused] = []
        deadline = time.monotonic() + _PATIENCE_S
        while Refused("why") not in heard:
            assert time.monotonic() < deadline
            courier.wait(0.05)
            heard += courier.hear()
        assert [message for message in heard if message != Command("hello", {})] == [
            Command("dump", {"all": True}),
            Refused("why"),
        ]


def test_a_full_socket_is_tried_again(log: SpoolWriter, address: Address) -> None:
    """Without a collector a few batches wait in the socket, and `pump` gives up at once."""
    for _ in range(40):
        log.append(bytes(1 << 20))
    with _courier(log, address) as courier:
        began = time.monotonic()
        courier.pump()
        courier.beat({})
        assert time.monotonic() - began < _PATIENCE_S / 2
        assert courier.shipment.sent < log.end


def test_wait_ends_when_the_wake_up_comes(log: SpoolWriter, tcp_address: Address) -> None:
    """Long before its time is over."""
    read, write = os.pipe()
    try:
        with _courier(log, tcp_address) as courier:
            timer = threading.Timer(0.05, os.write, (write, b"x"))
            timer.start()
            began = time.monotonic()
            courier.wait(_PATIENCE_S, read)
            assert time.monotonic() - began < _PATIENCE_S / 2
            timer.join()
    finally:
        os.close(read)
        os.close(write)


def test_wait_may_be_deaf(log: SpoolWriter, tcp_address: Address) -> None:
    """Then the collector's words do not end it: acks that nothing depends on wake nobody."""
    with _collector(tcp_address) as collector, _courier(log, tcp_address) as courier:
        _meet(courier, collector)
        collector.tell(Command("hello", {}))
        began = time.monotonic()
        courier.wait(0.1, hear=False)
        assert time.monotonic() - began >= 0.09


def test_wait_takes_any_descriptor(log: SpoolWriter) -> None:
    """A training may have thousands open, more than select() takes."""
    read, write = os.pipe()
    high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, 2000)
    try:
        courier = Courier(NAME, log)
        assert not courier.wait(0.0, high, hear=False)
        os.write(write, b"x")
        assert courier.wait(_PATIENCE_S, high, hear=False)
    finally:
        for fd in (read, write, high):
            os.close(fd)


@pytest.mark.parametrize("peer", ["nobody", "gone", "deaf"])
def test_close_never_waits_for_the_network(log: SpoolWriter, address: Address, peer: str) -> None:
    """Whatever lies unsent: with no peer, one that has died, one that takes nothing."""
    for _ in range(20):
        log.append(bytes(1 << 20))
    courier = Courier(NAME, log)
    with contextlib.ExitStack() as stack:
        if peer != "nobody":
            collector = stack.enter_context(_collector(address))
            courier.connect(address)
            _meet(courier, collector)
            if peer == "gone":
                collector.close()
        else:
            courier.connect(address)
        courier.pump()
        began = time.monotonic()
        courier.close()
        assert time.monotonic() - began < _PATIENCE_S / 2


def test_a_courier_that_is_not_connected_does_nothing(log: SpoolWriter) -> None:
    """Nor does it fail."""
    courier = Courier(NAME, log)
    assert not courier.is_connected
    assert courier.pump()  # there is something to send, and nowhere to send it
    courier.beat({})
    assert courier.hear() == []
    courier.wait(0.0)
    courier.close()
    courier.close()


def test_connecting_anew_begins_at_the_last_ack(log: SpoolWriter, address: Address) -> None:
    """What was in flight went into a connection that is gone."""
    with _courier(log, address) as courier:
        courier.pump()
        assert courier.shipment.sent == 100
        courier.connect(address)
        assert courier.shipment.sent == 0
        assert courier.heard_at is None
