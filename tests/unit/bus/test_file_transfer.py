"""Transfers: every byte arrives in order whatever is lost, within the window, and without needless repetition."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allranks_bus.files.transfer import SILENCE_S, WINDOW_BYTES, Flight, Kind, Step, Transfer
from allranks_bus.wire import MAX_CHUNK_BYTES, FileAt

MIB = 1024 * 1024
NAME, OTHER = b"a" * 16, b"b" * 16
OFFER, END = Step(Kind.OFFER), Step(Kind.END)


def _flight(*sizes: int, window_bytes: int = WINDOW_BYTES) -> Flight:
    flight = Flight(window_bytes=window_bytes)
    for name, size in zip((NAME, OTHER), sizes, strict=False):
        flight.add(name, size)
    return flight


def _send(flight: Flight, now: float = 0.0) -> list[tuple[bytes, Step]]:
    """All that goes out now."""
    sent: list[tuple[bytes, Step]] = []
    while (due := flight.next(now)) is not None:
        flight.sent_one(*due, now)
        sent.append(due)
    return sent


def _steps(flight: Flight, now: float = 0.0) -> list[Step]:
    return [step for _, step in _send(flight, now)]


def test_a_file_is_offered_before_anything_of_it_is_sent() -> None:
    flight = _flight(3 * MIB)
    assert _steps(flight) == [OFFER]
    assert flight.on_at(FileAt(NAME, 0), 0.0)
    assert _steps(flight) == [Step(Kind.CHUNK, offset * MIB, MIB) for offset in range(3)] + [END]


def test_a_file_goes_on_where_another_process_left_it() -> None:
    flight = _flight(3 * MIB)
    _send(flight)
    flight.on_at(FileAt(NAME, 2 * MIB + 5), 0.0)
    assert _steps(flight) == [Step(Kind.CHUNK, 2 * MIB + 5, MIB - 5), END]


def test_an_empty_file_has_an_end_and_no_chunk() -> None:
    flight = _flight(0)
    _send(flight)
    flight.on_at(FileAt(NAME, 0), 0.0)
    assert _steps(flight) == [END]


def test_no_more_is_sent_ahead_than_the_window_has() -> None:
    """Of all files together."""
    flight = _flight(20 * MIB, 20 * MIB, window_bytes=4 * MIB)
    _send(flight)
    for name in (NAME, OTHER):
        flight.on_at(FileAt(name, 0), 0.0)
    assert len(_send(flight)) == 4
    assert flight.in_flight == 4 * MIB
    flight.on_at(FileAt(NAME, MIB), 0.0)
    assert len(_send(flight)) == 1


def test_a_window_that_is_smaller_than_a_chunk_lets_one_through() -> None:
    flight = _flight(3 * MIB, window_bytes=10)
    _send(flight)
    flight.on_at(FileAt(NAME, 0), 0.0)
    assert len(_send(flight)) == 1


def test_files_take_turns() -> None:
    """A small one does not wait for a large one."""
    flight = _flight(100 * MIB, 2 * MIB)
    _send(flight)
    for name in (NAME, OTHER):
        flight.on_at(FileAt(name, 0), 0.0)
    assert [name for name, _ in _send(flight)[:5]] == [NAME, OTHER, NAME, OTHER, NAME]


def test_a_file_of_which_nothing_is_heard_is_offered_again() -> None:
    """Soon at first: a subscription takes a moment to arrive."""
    flight = _flight(MIB)
    offered: list[float] = []
    now = 0.0
    while now < 8.0:
        offered += [now for step in _steps(flight, now) if step == OFFER]
        now += 0.05
    assert 0.0 < offered[1] - offered[0] <= 0.2
    assert offered[-1] - offered[-2] == pytest.approx(SILENCE_S, abs=0.06)
    assert len(offered) < 10


def test_a_file_that_gets_no_further_is_offered_again_and_goes_on_from_the_answer() -> None:
    """Nothing else is sent meanwhile: what is in flight arrives before the offer does."""
    flight = _flight(100 * MIB)
    _send(flight)
    flight.on_at(FileAt(NAME, 0), 0.0)
    _send(flight)
    assert _steps(flight, SILENCE_S - 0.01) == []
    assert _steps(flight, SILENCE_S) == [OFFER]
    flight.on_at(FileAt(NAME, 5 * MIB), SILENCE_S)
    assert _steps(flight, SILENCE_S)[0] == Step(Kind.CHUNK, 5 * MIB, MIB)


def test_progress_puts_the_next_offer_off() -> None:
    flight = _flight(100 * MIB)
    _send(flight)
    flight.on_at(FileAt(NAME, 0), 0.0)
    for now in range(1, 20):
        assert flight.on_at(FileAt(NAME, now * MIB), float(now))
        assert OFFER not in _steps(flight, float(now))


def test_a_gap_makes_it_go_back_once() -> None:
    """However often the collector says so of what is in flight behind the gap."""
    transfer = Transfer(100 * MIB)
    transfer.sent_one(OFFER, 0.0)
    transfer.on_at(0, 0.0)
    for offset in range(10):
        transfer.sent_one(Step(Kind.CHUNK, offset * MIB, MIB), 0.0)
    transfer.on_at(3 * MIB, 0.1)
    assert (transfer.sent, transfer.resent) == (10 * MIB, 0)
    transfer.on_at(3 * MIB, 0.2)
    assert (transfer.sent, transfer.resent) == (3 * MIB, 1)
    transfer.sent_one(Step(Kind.CHUNK, 3 * MIB, MIB), 0.2)
    transfer.on_at(3 * MIB, 0.3)
    assert (transfer.sent, transfer.resent) == (4 * MIB, 1)


def test_the_answers_to_two_offers_are_no_gap() -> None:
    """The second offer was made before the first answer came."""
    transfer = Transfer(100 * MIB)
    transfer.sent_one(OFFER, 0.0)
    transfer.sent_one(OFFER, 0.1)
    transfer.on_at(0, 0.2)
    transfer.sent_one(Step(Kind.CHUNK, 0, MIB), 0.2)
    transfer.on_at(0, 0.2)
    assert (transfer.sent, transfer.resent) == (MIB, 0)


def test_an_end_that_was_lost_is_sent_again() -> None:
    flight = _flight(MIB)
    _send(flight)
    flight.on_at(FileAt(NAME, 0), 0.0)
    assert _steps(flight)[-1] == END
    assert _steps(flight, SILENCE_S) == [OFFER]
    flight.on_at(FileAt(NAME, MIB), SILENCE_S)
    assert _steps(flight, SILENCE_S) == [END]


@pytest.mark.parametrize("offset", [MIB + 1, 2**62])
def test_an_offset_that_cannot_be_is_ignored(offset: int) -> None:
    flight = _flight(MIB)
    _send(flight)
    flight.on_at(FileAt(NAME, offset), 0.0)
    assert _steps(flight) == []


def test_what_is_said_of_another_transfer_is_ignored() -> None:
    flight = _flight(MIB)
    _send(flight)
    assert not flight.on_at(FileAt(OTHER, 0), 0.0)
    flight.remove(NAME)
    assert not flight.on_at(FileAt(NAME, 0), 0.0)
    flight.remove(NAME)
    assert len(flight) == flight.in_flight == 0


def test_after_a_restart_all_is_offered_at_once() -> None:
    flight = _flight(10 * MIB, 10 * MIB)
    _send(flight)
    for name in (NAME, OTHER):
        flight.on_at(FileAt(name, 0), 0.0)
    _send(flight)
    flight.restart()
    assert flight.in_flight == 0
    assert _send(flight) == [(NAME, OFFER), (OTHER, OFFER)]


@dataclass
class _Collector:
    """A model of the other side: in order, or it says where it is."""

    size: int
    offset: int = 0
    is_whole: bool = False
    # What it says, in order.
    said: deque[int] = field(default_factory=deque[int])
    told: int = -1

    def take(self, step: Step) -> None:
        if step.kind is Kind.CHUNK and step.offset == self.offset:
            self.offset += step.length
            if self.offset - self.told < 2 * MIB:
                return
        if step.kind is Kind.END and self.offset == self.size:
            self.is_whole = True
            return
        self.told = self.offset
        self.said.append(self.offset)


@settings(max_examples=40)
@given(
    size=st.integers(0, 12 * MIB),
    window=st.integers(1, 6 * MIB),
    losses=st.sets(st.integers(0, 60), max_size=25),
    lost_answers=st.sets(st.integers(0, 30), max_size=15),
    restarts=st.sets(st.integers(0, 100), max_size=3),
)
def test_a_file_arrives_whatever_is_lost(
    size: int, window: int, losses: set[int], lost_answers: set[int], restarts: set[int]
) -> None:
    """Messages, answers, connections, and what the collector had in its memory."""
    flight, collector = _flight(size, window_bytes=window), _Collector(size)
    sent = answered = 0
    for turn in range(2000):
        now = turn * 0.1
        if turn in restarts:
            flight.restart()
            collector.said.clear()
            collector.offset = min(collector.offset, 2 * MIB)
        for _, step in _send(flight, now):
            assert flight.in_flight <= max(window, MAX_CHUNK_BYTES)
            if sent not in losses:
                collector.take(step)
            sent += 1
        if collector.is_whole:
            return
        while collector.said:
            offset = collector.said.popleft()
            if answered not in lost_answers:
                flight.on_at(FileAt(NAME, offset), now)
            answered += 1
    raise AssertionError(f"{collector.offset} of {size} bytes have come")
