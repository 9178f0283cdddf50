"""The framing of records: what is whole is given, and nothing of what is not."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_bus.records import HEADER, MAX_PAYLOAD_BYTES, frame, scan

_PAYLOADS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def _scanned(buffer: bytes, start: int = 0) -> list[bytes]:
    return [buffer[begin:end] for begin, end in scan(buffer, start)]


@given(_PAYLOADS)
def test_what_is_framed_is_scanned(payloads: list[bytes]) -> None:
    """Any payloads come back, in order, and the last one ends where the buffer does."""
    buffer = b"".join(map(frame, payloads))
    assert _scanned(buffer) == payloads
    assert [end for _, end in scan(buffer)][-1:] == ([len(buffer)] if payloads else [])


def test_a_record_is_length_checksum_payload() -> None:
    """The layout of docs/protocol.md §3, written out by hand."""
    assert frame(b"abc") == struct.pack("<II", 3, crc32(b"abc")) + b"abc"


def test_a_scan_begins_where_it_is_told() -> None:
    """Records before `start` are passed over."""
    first, second = frame(b"first"), frame(b"second")
    assert _scanned(first + second, len(first)) == [b"second"]


def test_a_torn_tail_is_left_out_at_every_offset() -> None:
    """However much of the last record was written, those before it are given, and it is not."""
    whole, last = frame(b"one") + frame(b"two"), frame(b"the last one")
    for kept in range(len(last)):
        assert _scanned(whole + last[:kept]) == [b"one", b"two"], kept
    assert _scanned(whole + last) == [b"one", b"two", b"the last one"]


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_ends_the_scan_before_its_record(bit: int) -> None:
    """A change of any one bit of a record is seen."""
    first, second, third = frame(b"one"), frame(b"two"), frame(b"three")
    for at in range(len(second)):
        damaged = bytearray(second)
        damaged[at] ^= 1 << bit
        assert _scanned(first + bytes(damaged) + third) == [b"one"], at


@pytest.mark.parametrize("length", [0, MAX_PAYLOAD_BYTES + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_ends_the_scan(length: int) -> None:
    """Even where the bytes behind it would bear it out."""
    payload = b"x" * min(length, MAX_PAYLOAD_BYTES + 1)
    assert _scanned(frame(b"one") + HEADER.pack(length, crc32(payload)) + payload) == [b"one"]


def test_the_largest_payload_is_whole() -> None:
    """The limit itself is allowed."""
    assert [end - begin for begin, end in scan(frame(bytes(MAX_PAYLOAD_BYTES)))] == [MAX_PAYLOAD_BYTES]


@given(st.binary(max_size=200))
def test_hostile_bytes_are_scanned_without_an_error(buffer: bytes) -> None:
    """Whatever is found lies in the buffer, in order."""
    ends = [0]
    for begin, end in scan(buffer):
        assert ends[-1] + 8 == begin < end <= len(buffer)
        ends.append(end)
