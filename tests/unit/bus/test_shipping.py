"""Shipping: whatever the network does, every record arrives once, and no more is under way than is allowed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from allranks_bus.shipping import RESEND_AFTER_S, RESEND_AT_MOST_S, Parcel, Shipment
from allranks_bus.wire import Ack

COLLECTOR = bytes(16)


@dataclass
class ListLog:
    """A log in memory: segments of a fixed number of records, a mark every few, one letter a record."""

    records: list[bytes] = field(default_factory=lambda: [b"o"])
    base: int = 0
    segment: int = 10
    mark: int = 4

    @property
    def end(self) -> int:
        return len(self.records)

    def read(self, seq: int) -> tuple[int, bytes]:
        segment_end = (seq // self.segment + 1) * self.segment
        mark_end = seq - seq % self.segment + (seq % self.segment // self.mark + 1) * self.mark
        found = self.records[seq : min(segment_end, mark_end)]
        return len(found), b"".join(found)

    def release(self, seq: int) -> None:
        self.base = max(self.base, min(seq, self.end - 1) // self.segment * self.segment)


def _ack(seq: int, *, resend: bool = False) -> Ack:
    return Ack(seq, COLLECTOR, 0, resend)


def _log(count: int) -> ListLog:
    return ListLog([b"%c" % (97 + number % 26) for number in range(count)])


def _send_all(shipment: Shipment, now: float) -> list[Parcel]:
    sent: list[Parcel] = []
    while (parcel := shipment.next(now)) is not None:
        shipment.sent_one(parcel, now)
        sent.append(parcel)
    return sent


def test_everything_is_sent_in_order() -> None:
    """Batch after batch, each where the one before it ended."""
    shipment = Shipment(_log(30))
    sent = _send_all(shipment, 0.0)
    assert [parcel.first_seq for parcel in sent] == [0, 4, 8, 10, 14, 18, 20, 24, 28]
    assert sum(parcel.count for parcel in sent) == shipment.sent == 30
    assert shipment.next(1.0) is None


def test_what_is_not_sent_is_given_again() -> None:
    """A full socket is no loss."""
    shipment = Shipment(_log(3))
    assert shipment.next(0.0) == shipment.next(0.0) == Parcel(0, 3, 0, b"abc")


def test_the_window_is_never_exceeded() -> None:
    """Neither by a batch that begins within it; an ack makes room."""
    shipment = Shipment(_log(100), window_bytes=10)
    assert sum(len(parcel.body) for parcel in _send_all(shipment, 0.0)) == 10
    shipment.on_ack(_ack(4), 0.0)
    assert [len(parcel.body) for parcel in _send_all(shipment, 0.0)] == [4]


def test_a_batch_that_is_larger_than_the_window_is_sent_alone() -> None:
    """Otherwise it would never be."""
    shipment = Shipment(_log(100), window_bytes=3)
    assert [parcel.count for parcel in _send_all(shipment, 0.0)] == [4]


def test_acks_make_room_and_release() -> None:
    """All before an ack may be forgotten."""
    log = _log(30)
    shipment = Shipment(log)
    _send_all(shipment, 0.0)
    assert shipment.on_ack(_ack(25), 1.0)
    assert (shipment.acked, log.base, shipment.is_done) == (25, 20, False)
    shipment.on_ack(_ack(30), 1.0)
    assert (shipment.is_done, shipment.deadline) == (True, None)


def test_resend_deadlines_double_up_to_thirty_seconds() -> None:
    """2, 4, 8, 16, 30, 30 seconds: a collector that is down is not drowned when it comes back."""
    shipment = Shipment(_log(3))
    now, waits = 0.0, list[float]()
    for _ in range(6):
        assert len(_send_all(shipment, now)) == 1
        deadline = shipment.deadline
        assert deadline is not None
        assert shipment.next(deadline - 0.01) is None
        waits.append(deadline - now)
        now = deadline
    assert waits == [RESEND_AFTER_S, 4.0, 8.0, 16.0, RESEND_AT_MOST_S, RESEND_AT_MOST_S]
    assert shipment.resends == 5


@pytest.mark.parametrize("what", ["ack", "restart"])
def test_the_deadline_is_short_again_after(what: str) -> None:
    """An ack that moves, or a new connection, begins anew."""
    shipment = Shipment(_log(30))
    now = 0.0
    for _ in range(4):
        _send_all(shipment, now)
        now = shipment.deadline or now
    if what == "ack":
        shipment.on_ack(_ack(4), now)
    else:
        shipment.restart()
    _send_all(shipment, now)
    assert shipment.deadline == now + RESEND_AFTER_S


def test_an_ack_that_does_not_move_does_not_put_off_the_resend() -> None:
    """Each beat is answered with one, also while batches are lost."""
    shipment = Shipment(_log(30))
    _send_all(shipment, 0.0)
    for tenth in range(19):
        assert not shipment.on_ack(_ack(0), tenth / 10)
    assert shipment.deadline == RESEND_AFTER_S


def test_a_resend_is_done_at_once() -> None:
    """From the position that the collector names, at which it is acked too."""
    shipment = Shipment(_log(30))
    _send_all(shipment, 0.0)
    shipment.on_ack(_ack(10, resend=True), 0.1)
    assert shipment.acked == 10
    assert _send_all(shipment, 0.1)[0].first_seq == 10


def test_an_ack_between_two_marks_is_gone_on_from() -> None:
    """A collector passes over single records."""
    shipment = Shipment(_log(30))
    shipment.on_ack(_ack(6), 0.0)
    assert _send_all(shipment, 0.0)[0] == Parcel(6, 2, 0, b"gh")


def test_a_new_collector_gets_all_that_is_still_held() -> None:
    """Its position is behind; what was released is gone, and the batch says so by its base."""
    log = _log(30)
    shipment = Shipment(log)
    _send_all(shipment, 0.0)
    shipment.on_ack(_ack(27), 0.0)
    shipment.on_ack(_ack(0), 1.0)
    assert shipment.acked == log.base == 20
    first = _send_all(shipment, 1.0)[0]
    assert (first.first_seq, first.base) == (20, 20)


def test_an_ack_of_records_that_do_not_exist_is_ignored() -> None:
    """A broken collector must not make this side forget anything."""
    log = _log(30)
    shipment = Shipment(log)
    assert not shipment.on_ack(_ack(31), 0.0)
    assert not shipment.on_ack(_ack(31, resend=True), 0.0)
    assert (shipment.acked, log.base) == (0, 0)


def test_a_gap_in_the_log_is_jumped_over() -> None:
    """A damaged spool goes on at its next segment, once the one before it is stored."""
    log = _log(30)
    shipment = Shipment(log)
    _send_all(shipment, 0.0)
    log.base = 20
    shipment.restart()
    parcel = shipment.next(0.0)
    assert parcel is not None
    assert (parcel.first_seq, parcel.base) == (20, 20)


def test_nothing_to_send_is_no_reason_to_resend() -> None:
    """A deadline without anything in flight would count resends for ever."""
    shipment = Shipment(_log(4))
    _send_all(shipment, 0.0)
    shipment.on_ack(_ack(4), 0.0)
    assert shipment.next(1000.0) is None
    assert shipment.resends == 0


class LossyNetwork(RuleBasedStateMachine):
    """A shipment and a collector (docs/protocol.md §8) with a network between that loses, repeats and delays."""

    WINDOW = 12

    def __init__(self) -> None:
        super().__init__()
        self.log = _log(1)
        self.shipment = Shipment(self.log, window_bytes=self.WINDOW)
        self.now = 0.0
        self.up: deque[Parcel] = deque()
        self.down: deque[Ack] = deque()
        self.position = 0
        # The seqs that the database holds, in the order in which they came.
        self.stored: list[int] = []

    @rule(count=st.integers(1, 15))
    def log_events(self, count: int) -> None:
        self.log.records += [b"%c" % (97 + number % 26) for number in range(self.log.end, self.log.end + count)]

    @rule(most=st.integers(1, 6), lost=st.sets(st.integers(0, 5)), twice=st.sets(st.integers(0, 5)))
    def send(self, most: int, lost: set[int], twice: set[int]) -> None:
        for number in range(most):
            parcel = self.shipment.next(self.now)
            if parcel is None:
                break
            self.shipment.sent_one(parcel, self.now)
            self.up.extend([parcel] * (0 if number in lost else 2 if number in twice else 1))

    @rule(most=st.integers(1, 6), is_answer_lost=st.booleans())
    def receive(self, most: int, is_answer_lost: bool) -> None:
        for _ in range(min(most, len(self.up))):
            answer = self._take(self.up.popleft())
            if not is_answer_lost:
                self.down.append(answer)

    @rule()
    def beat(self) -> None:
        self.down.append(_ack(self.position))

    @rule(most=st.integers(1, 6), twice=st.booleans())
    def hear(self, most: int, twice: bool) -> None:
        for _ in range(min(most, len(self.down))):
            ack = self.down.popleft()
            for _ in range(1 + twice):
                self.shipment.on_ack(ack, self.now)

    @rule(seconds=st.floats(0.1, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def connection_breaks(self) -> None:
        self.up.clear()
        self.down.clear()
        self.shipment.restart()

    @rule()
    def collector_is_restarted(self) -> None:
        """What it has stored stays, what is under way is lost."""
        self.up.clear()
        self.down.clear()

    @rule()
    def database_is_lost(self) -> None:
        """A new life begins with nothing."""
        self.position, self.stored = 0, []
        self.up.clear()
        self.down.clear()

    @invariant()
    def the_window_is_kept(self) -> None:
        in_flight = self.log.records[self.shipment.acked : self.shipment.sent]
        assert len(in_flight) <= self.WINDOW

    @invariant()
    def nothing_is_forgotten_that_is_not_stored(self) -> None:
        assert self.log.base <= max(self.shipment.acked, 0)

    @invariant()
    def everything_stored_is_stored_once(self) -> None:
        assert self.stored == sorted(set(self.stored))

    def teardown(self) -> None:
        """The network is well again: everything that is still held arrives, within a few steps."""
        held = self.log.base
        for _ in range(200):
            self.now += 31.0
            self.send(most=6, lost=set(), twice=set())
            self.receive(most=100, is_answer_lost=False)
            self.beat()
            self.hear(most=100, twice=False)
            if self.shipment.is_done:
                break
        assert self.shipment.is_done
        assert self.position == self.log.end
        assert self.stored == sorted(set(self.stored))
        assert set(range(held, self.log.end)) <= set(self.stored)

    def _take(self, parcel: Parcel) -> Ack:
        """The rules of §8, one by one."""
        assert parcel.body == b"".join(self.log.records[parcel.first_seq : parcel.first_seq + parcel.count])
        end = parcel.first_seq + parcel.count
        if end <= self.position:
            return _ack(self.position)
        if parcel.first_seq > self.position and parcel.first_seq != parcel.base:
            return _ack(self.position, resend=True)
        self.stored += range(max(self.position, parcel.first_seq), end)
        self.position = end
        return _ack(self.position)


TestLossyNetwork = LossyNetwork.TestCase
TestLossyNetwork.settings = settings(max_examples=60, stateful_step_count=40)
