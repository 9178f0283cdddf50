"""Messages: what is sent comes back, and a stranger's bytes are a message or a ProtocolError."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_bus.errors import ProtocolError, VersionMismatch
from allranks_bus.version import PROTOCOL_VERSION
from allranks_bus.wire import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_BEAT_BYTES,
    MAX_CHUNK_BYTES,
    MAX_HEADER_BYTES,
    MAX_OFFER_BYTES,
    Abort,
    Ack,
    Batch,
    Beat,
    Chunk,
    Command,
    Down,
    End,
    FileAt,
    FileRefused,
    FileStored,
    Offer,
    Refused,
    pack_abort,
    pack_batch_header,
    pack_beat,
    pack_chunk_header,
    pack_down,
    pack_end,
    pack_offer,
    unpack_down,
    unpack_up,
)

WRITER = bytes(range(16))
FILE = bytes(range(16, 32))

_counts = st.integers(0, 2**63 - 1)
_writers = st.binary(min_size=16, max_size=16)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
_maps = st.dictionaries(st.text(max_size=10), _values, max_size=5)
_downs: st.SearchStrategy[Down] = (
    st.builds(Ack, _counts, st.binary(max_size=16), _counts, st.booleans())
    | st.builds(Command, st.text(max_size=20), _maps)
    | st.builds(Refused, st.text(max_size=50))
    | st.builds(FileAt, _writers, _counts)
    | st.builds(FileStored, _writers, st.binary(min_size=32, max_size=32).map(bytes.hex))
    | st.builds(FileRefused, _writers, st.text(max_size=50), st.booleans())
)
_texts = st.text(max_size=20)
_offers = st.builds(
    Offer, _writers, _writers, _counts, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True),
    *[_texts] * 4, _counts, _counts, st.none() | st.integers(0, 2**17 - 1),
)  # fmt: skip


def _packed(value: object) -> bytes:
    return cast("bytes", msgpack.packb(value))


def _header(*fields: Any) -> bytes:
    return _packed(fields)


@given(
    st.builds(
        Batch, _writers, _counts, st.integers(1, MAX_BATCH_RECORDS), _counts, _counts, st.binary(), st.booleans()
    )
)
def test_a_batch_comes_back(batch: Batch) -> None:
    """With every field, and its body as it is."""
    header = pack_batch_header(
        batch.writer, batch.first_seq, batch.count, batch.base, batch.sent_ns, is_urgent=batch.is_urgent
    )
    assert unpack_up([header, batch.body]) == batch


@given(st.builds(Beat, _writers, _counts, _counts, _counts, _maps))
def test_a_beat_comes_back(beat: Beat) -> None:
    """With every field, and its status."""
    assert unpack_up(list(pack_beat(beat))) == beat


@given(_offers)
def test_an_offer_comes_back(offer: Offer) -> None:
    """With every field, and with a name that is checked by whoever answers it."""
    assert unpack_up(list(pack_offer(offer))) == offer


@given(st.builds(Chunk, _writers, _writers, _counts, st.integers(0, 2**32 - 1), st.binary(min_size=1)))
def test_a_chunk_comes_back(chunk: Chunk) -> None:
    """With its bytes as they are."""
    header = pack_chunk_header(chunk.sender, chunk.transfer, chunk.offset, chunk.crc32)
    assert unpack_up([header, chunk.body]) == chunk


@given(_writers, _writers, _counts)
def test_an_end_and_an_abort_come_back(sender: bytes, transfer: bytes, size: int) -> None:
    """They have no body to speak of."""
    end, abort = End(sender, transfer, size), Abort(sender, transfer)
    assert unpack_up(list(pack_end(end))) == end
    assert unpack_up(list(pack_abort(abort))) == abort


@given(_downs)
def test_what_goes_down_comes_back(message: Down) -> None:
    """Acks, resends, commands, refusals."""
    assert unpack_down(pack_down(message)) == message


@given(st.lists(st.binary(max_size=120), max_size=4))
def test_any_frames_are_a_message_or_a_protocol_error(frames: list[bytes]) -> None:
    """Nothing else comes out of them."""
    with contextlib.suppress(ProtocolError):
        unpack_up(frames)
    for frame in frames:
        with contextlib.suppress(ProtocolError):
            unpack_down(frame)


@given(
    st.lists(_values | st.just(WRITER), max_size=9),
    st.sampled_from([1, 2, 3, 4, 5, 6, 7]),
    st.binary(max_size=50) | _maps.map(_packed),
)
def test_any_fields_are_a_message_or_a_protocol_error(fields: list[Any], kind: int, body: bytes) -> None:
    """Also where version, type and writer are right."""
    for header in (_header(1, kind, WRITER, *fields), _header(1, kind, *fields)):
        with contextlib.suppress(ProtocolError):
            unpack_up([header, body])
        with contextlib.suppress(ProtocolError):
            unpack_down(header)


def test_the_batch_of_a_newer_sender_is_understood() -> None:
    """Fields that are added behind the known ones are ignored."""
    message = unpack_up([_header(1, 1, WRITER, 5, 2, 0, 99, 1, "new", {"more": 1}), b"body"])
    assert message == Batch(WRITER, 5, 2, 0, 99, b"body", is_urgent=True)


def test_the_batch_of_an_older_sender_is_understood() -> None:
    """`urgent` may be left out."""
    assert unpack_up([_header(1, 1, WRITER, 5, 2, 0, 99), b"body"]) == Batch(WRITER, 5, 2, 0, 99, b"body")


def test_the_beat_and_the_answers_of_a_newer_side_are_understood() -> None:
    """What is added to them is ignored."""
    beat = unpack_up([_header(1, 2, WRITER, 5, 0, 99, "new"), _packed({"new": [1]})])
    assert beat == Beat(WRITER, 5, 0, 99, {"new": [1]})
    assert unpack_down(_header(1, 1, 7, WRITER, 99, "new")) == Ack(7, WRITER, 99)
    assert unpack_down(_header(1, 3, "dump", {}, "new")) == Command("dump", {})
    assert unpack_down(_header(1, 4, "why", "new")) == Refused("why")


@pytest.mark.parametrize("version", [0, 2, 99, -1, None, "1", True, 1.0, [1], {"a": 1}])
def test_another_version_names_the_writer(version: object) -> None:
    """So that it can be told."""
    with pytest.raises(VersionMismatch) as caught:
        unpack_up([_header(version, 1, WRITER, "whatever follows"), b""])
    assert caught.value.writer == WRITER
    assert f"1 to {PROTOCOL_VERSION}" in str(caught.value)


@pytest.mark.parametrize("header", [(), (2,), (2, 1), (2, 1, None), (2, 1, b"short"), (2, 1, "x" * 16)])
def test_another_version_without_a_writer_names_nobody(header: tuple[Any, ...]) -> None:
    """Where the header does not tell, there is nobody to tell."""
    with pytest.raises(VersionMismatch) as caught:
        unpack_up([_header(*header), b""])
    assert caught.value.writer is None


@pytest.mark.parametrize("frames", [[], [b""], [b"", b"", b""], [_header(1, 1, WRITER, 0, 1, 0, 0)]])
def test_a_message_has_two_frames(frames: list[bytes]) -> None:
    """Not more, not fewer."""
    with pytest.raises(ProtocolError):
        unpack_up(frames)


@pytest.mark.parametrize(
    "fields",
    [
        (1, 1), (1, 1, None), (1, 1, "x" * 16, 0, 1, 0, 0), (1, 1, b"x" * 15, 0, 1, 0, 0), (1, 1, WRITER),
        (1, 1, WRITER, 0, 1, 0), (1, 1, WRITER, -1, 1, 0, 0), (1, 1, WRITER, 2**63, 1, 0, 0),
        (1, 1, WRITER, 0, 0, 0, 0), (1, 1, WRITER, 0, MAX_BATCH_RECORDS + 1, 0, 0), (1, 1, WRITER, 0, 1.0, 0, 0),
        (1, 1, WRITER, 0, True, 0, 0), (1, 1, WRITER, "0", 1, 0, 0), (1, 1, WRITER, 0, 1, None, 0),
        (1, 3, WRITER, 0, 1, 0, 0), (1, None, WRITER, 0, 1, 0, 0), (1, [1], WRITER, 0, 1, 0, 0),
        (1, 2, WRITER, 0, 1), (1, 2, WRITER, -1, 0, 0), (1, 7, WRITER, FILE, 0), (1, True, WRITER, 0, 1, 0, 0),
        (1, 3, WRITER), (1, 3, WRITER, FILE), (1, 3, WRITER, FILE, 0), (1, 4, WRITER, b"short", 0, 0),
        (1, 4, WRITER, FILE, 0), (1, 4, WRITER, FILE, -1, 0), (1, 4, WRITER, FILE, 0, 2**32), (1, 5, WRITER, FILE),
        (1, 5, WRITER, FILE, None), (1, 5, WRITER, "x" * 16, 0), (1, 6, WRITER), (1, 6, WRITER, FILE[1:]),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_is_refused(fields: tuple[Any, ...]) -> None:
    """Every field is checked."""
    with pytest.raises(ProtocolError):
        unpack_up([_header(*fields), _packed({})])


@pytest.mark.parametrize(
    "fields",
    [
        (), (1,), (2, 1, 0, WRITER, 0), (1, 1), (1, 1, -1, WRITER, 0), (1, 1, 0, "name", 0), (1, 1, 0, WRITER, None),
        (1, 3, "name"), (1, 3, b"name", {}), (1, 3, "name", []), (1, 4), (1, 4, None), (1, 5, "what"), (1, None),
        (1, [1]), (1, 5, FILE), (1, 5, FILE, -1), (1, 5, FILE[1:], 0), (1, 6, FILE), (1, 6, FILE, "digest"),
        (1, 6, FILE, "F" * 64), (1, 6, FILE, bytes(64)), (1, 7, FILE), (1, 7, FILE, "why"), (1, 7, FILE, None, True),
        (1, 7, FILE, "why", 1), (1, 8, FILE, 0),
    ],
)  # fmt: skip
def test_an_answer_that_cannot_be_is_refused(fields: tuple[Any, ...]) -> None:
    """Every field is checked."""
    with pytest.raises(ProtocolError):
        unpack_down(_header(*fields))


@pytest.mark.parametrize("status", [None, [], "text", 1, {1: 2}, {None: 1}])
def test_a_status_is_a_map_of_names(status: object) -> None:
    """Whoever reads it looks for names."""
    with pytest.raises(ProtocolError):
        unpack_up([_header(1, 2, WRITER, 0, 0, 0), _packed(status)])


_TOLD = {
    "run": "r", "project": "p", "launch": "l", "host": "h", "name": "a/b", "size": 1, "modified": 2, "rank": 3,
}  # fmt: skip


def test_the_offer_of_a_newer_sender_is_understood() -> None:
    """What is added to it is ignored."""
    message = unpack_up([_header(1, 3, WRITER, FILE, 9, "new"), _packed({**_TOLD, "new": [1]})])
    assert message == Offer(WRITER, FILE, 9, "r", "p", "l", "h", "a/b", 1, 2, 3)


def test_an_offer_of_nobodys_file_has_no_rank() -> None:
    """It may be left out."""
    told = {key: value for key, value in _TOLD.items() if key != "rank"}
    message = unpack_up([_header(1, 3, WRITER, FILE, 9), _packed(told)])
    assert message == Offer(WRITER, FILE, 9, "r", "p", "l", "h", "a/b", 1, 2, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", None), ("run", "../up"), ("run", ""), ("project", b"p"), ("launch", 1), ("host", None),
        ("name", None), ("name", b"a"), ("size", -1), ("size", 1.5), ("size", 2**63),
        ("modified", None), ("modified", True), ("rank", -1), ("rank", 2**17), ("rank", "0"), ("rank", True),
    ],
)  # fmt: skip
def test_an_offer_that_cannot_be_is_refused(key: str, value: object) -> None:
    """Every field is checked; the name only for being text, because its sender must be told."""
    with pytest.raises(ProtocolError):
        unpack_up([_header(1, 3, WRITER, FILE, 9), _packed({**_TOLD, key: value})])


@pytest.mark.parametrize("kind", [5, 6])
@pytest.mark.parametrize("body", [b"", b"\x90", b"\xff", _packed({"a": bytes(MAX_HEADER_BYTES)})])
def test_the_body_of_an_end_or_an_abort_is_a_map(kind: int, body: bytes) -> None:
    """A small one."""
    with pytest.raises(ProtocolError):
        unpack_up([_header(1, kind, WRITER, FILE, 0), body])


def test_a_chunk_has_a_byte_at_least_and_a_mebibyte_at_most() -> None:
    """An empty one would move nothing on."""
    header = pack_chunk_header(WRITER, FILE, 0, 0)
    assert isinstance(unpack_up([header, bytes(MAX_CHUNK_BYTES)]), Chunk)
    for body in (b"", bytes(MAX_CHUNK_BYTES + 1)):
        with pytest.raises(ProtocolError):
            unpack_up([header, body])


def test_sizes_have_limits() -> None:
    """Of a batch's body, of a beat's status, and of a header, whatever the socket let through."""
    batch, beat = _header(1, 1, WRITER, 0, 1, 0, 0), _header(1, 2, WRITER, 0, 0, 0)
    assert isinstance(unpack_up([batch, bytes(MAX_BATCH_BYTES)]), Batch)
    for frames in (
        [batch, bytes(MAX_BATCH_BYTES + 1)],
        [beat, _packed({"a": bytes(MAX_BEAT_BYTES)})],
        [_header(1, 3, WRITER, FILE, 0), _packed({**_TOLD, "new": bytes(MAX_OFFER_BYTES)})],
        [_header(1, 2, WRITER, 0, 0, 0, bytes(MAX_HEADER_BYTES)), _packed({})],
    ):
        with pytest.raises(ProtocolError, match=r"at most|cannot hold"):
            unpack_up(frames)


@pytest.mark.parametrize("depth", [64, 600, 1000])
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_deep_nesting_in_a_header_is_a_protocol_error(depth: int, at: int) -> None:
    """Python itself could not even print such a value."""
    fields = [b"\x01", b"\x01", b"\xc4\x10" + WRITER, b"\x00"]
    fields[at] = b"\x91" * depth + b"\x90"
    header = b"\x97" + b"".join(fields) + b"\x01\x00\x00"
    for read in (lambda: unpack_up([header, b""]), lambda: unpack_down(header)):
        with pytest.raises(ProtocolError):
            read()


def test_deep_nesting_in_a_status_is_a_protocol_error() -> None:
    """The status is for others to use, who may recurse."""
    with pytest.raises(ProtocolError, match="levels deep"):
        unpack_up([_header(1, 2, WRITER, 0, 0, 0), b"\x81\xa1a" + b"\x91" * 900 + b"\x90"])


def test_errors_are_short_however_large_the_value() -> None:
    """They go into logs at a bounded rate, and must be of bounded size too."""
    for fields in ((bytes(900), 1, WRITER), (1, "t" * 900, WRITER), (1, 1, "w" * 900)):
        with pytest.raises(ProtocolError) as caught:
            unpack_up([_header(*fields), b""])
        assert len(str(caught.value)) < 400


def test_text_that_is_no_unicode_can_be_sent() -> None:
    """An undecodable host name must not stop the beats."""
    beat = unpack_up(list(pack_beat(Beat(WRITER, 0, 0, 0, {"host": "a\udcff"}))))
    assert isinstance(beat, Beat)
    assert beat.status == {"host": "a?"}
