"""Messages: what goes up from a writer and down from the collector, as two frames each.

     up    header [version, type, writer, …]     body: records (BATCH) or a status map (BEAT)
     down  topic  the writer's 16 bytes           msgpack array [version, type, …]

Pure: values in, frames out, and back with every field checked. docs/protocol.md §6 and §7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import msgpack

from allranks_bus import untrusted
from allranks_bus.errors import ProtocolError, VersionMismatch
from allranks_bus.version import PROTOCOL_VERSION

WRITER_ID_BYTES = 16
MAX_BATCH_RECORDS = 65_536
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_BEAT_BYTES = 64 * 1024
# A header has eight small fields; the rest is room for what a newer sender adds.
MAX_HEADER_BYTES = 1024
MAX_CONTROL_BYTES = 1024 * 1024
# A little more than the largest frame: ZeroMQ cuts off a peer that sends more.
MAX_MESSAGE_BYTES = MAX_BATCH_BYTES + 4096

_BATCH, _BEAT = 1, 2
_ACK, _RESEND, _COMMAND, _REFUSED = 1, 2, 3, 4
_MAX_COUNT = 2**63


@dataclass(frozen=True)
class Batch:
    """Consecutive records of one writer; `body` holds `count` of them, the first numbered `first_seq`.

    `is_urgent` where the writer waits for the ack in order to end.
    """

    writer: bytes
    first_seq: int
    count: int
    base: int
    sent_ns: int
    body: bytes
    is_urgent: bool = False


@dataclass(frozen=True)
class Beat:
    """A writer's sign of life, once a second; `status` is its map as it came."""

    writer: bytes
    next_seq: int
    base: int
    sent_ns: int
    status: Mapping[str, Any]


@dataclass(frozen=True)
class Ack:
    """All records before `next_seq` are stored. `resend` asks to send again from there: there is a gap."""

    next_seq: int
    collector: bytes
    sent_ns: int
    resend: bool = False


@dataclass(frozen=True)
class Command:
    """The collector asks a writer to do something."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """The collector cannot take this writer's messages, and says why."""

    reason: str


Up: TypeAlias = Batch | Beat
Down: TypeAlias = Ack | Command | Refused


def pack_batch_header(
    writer: bytes, first_seq: int, count: int, base: int, sent_ns: int, *, is_urgent: bool = False
) -> bytes:
    """The header frame of a batch; its body frame is the records as they lie in the spool."""
    return _pack((PROTOCOL_VERSION, _BATCH, writer, first_seq, count, base, sent_ns, int(is_urgent)))


def pack_beat(beat: Beat) -> tuple[bytes, bytes]:
    """Both frames of a beat."""
    header = _pack((PROTOCOL_VERSION, _BEAT, beat.writer, beat.next_seq, beat.base, beat.sent_ns))
    return header, _pack(dict(beat.status))


def unpack_up(frames: list[bytes]) -> Up:
    """The message in `frames`, as a collector receives them.

    Raises:
        VersionMismatch: it is of a protocol version that this side does not speak.
        ProtocolError: the frames are no message.
    """
    if len(frames) != 2:
        raise ProtocolError(f"a message has 2 frames, not {len(frames)}")
    header = _array(frames[0], "header", MAX_HEADER_BYTES)
    version = header[0] if header else None
    if version != PROTOCOL_VERSION or type(version) is not int:
        raise VersionMismatch(version, PROTOCOL_VERSION, _writer_or_none(header))
    try:
        _, kind, writer, *rest = header
    except ValueError:
        raise ProtocolError("a header begins with version, type and writer") from None
    if type(writer) is not bytes or len(writer) != WRITER_ID_BYTES:
        raise ProtocolError(f"a writer's name is {WRITER_ID_BYTES} bytes, not {untrusted.brief(writer)}")
    if kind == _BATCH:
        first_seq, count, base, sent_ns = _counts(rest, 4)
        if not 1 <= count <= MAX_BATCH_RECORDS or len(frames[1]) > MAX_BATCH_BYTES:
            raise ProtocolError(f"a batch cannot hold {count} records in {len(frames[1])} bytes")
        return Batch(writer, first_seq, count, base, sent_ns, frames[1], is_urgent=rest[4:5] == [1])
    if kind == _BEAT:
        next_seq, base, sent_ns = _counts(rest, 3)
        if len(frames[1]) > MAX_BEAT_BYTES:
            raise ProtocolError(f"a beat's status has at most {MAX_BEAT_BYTES} bytes, not {len(frames[1])}")
        return Beat(writer, next_seq, base, sent_ns, _map(frames[1]))
    raise ProtocolError(f"a message cannot be of type {untrusted.brief(kind)}")


def pack_down(message: Down) -> bytes:
    """The second frame of a message to a writer; the first is the writer's name."""
    fields: tuple[Any, ...]
    if isinstance(message, Ack):
        kind = _RESEND if message.resend else _ACK
        fields = (kind, message.next_seq, message.collector, message.sent_ns)
    elif isinstance(message, Command):
        fields = (_COMMAND, message.name, dict(message.arguments))
    else:
        fields = (_REFUSED, message.reason)
    return _pack((PROTOCOL_VERSION, *fields))


def unpack_down(frame: bytes) -> Down:
    """The message in a control message's second frame, as a writer receives it.

    Raises:
        ProtocolError: the frame is no message of this version.
    """
    array = _array(frame, "control message", MAX_CONTROL_BYTES)
    if len(array) < 2 or array[0] != PROTOCOL_VERSION:
        raise ProtocolError("a control message begins with version and type")
    _, kind, *rest = array
    if kind in (_ACK, _RESEND) and len(rest) >= 3 and type(rest[1]) is bytes:
        next_seq, sent_ns = _counts([rest[0], rest[2]], 2)
        return Ack(next_seq, rest[1], sent_ns, resend=kind == _RESEND)
    if kind == _COMMAND and len(rest) >= 2 and type(rest[0]) is str and isinstance(rest[1], dict):
        return Command(rest[0], rest[1])
    if kind == _REFUSED and rest and type(rest[0]) is str:
        return Refused(rest[0])
    raise ProtocolError(f"a control message cannot be of type {untrusted.brief(kind)} with these fields")


def _pack(value: object) -> bytes:
    return cast("bytes", msgpack.packb(value, unicode_errors="replace"))


def _array(frame: bytes, what: str, max_bytes: int) -> list[Any]:
    if len(frame) > max_bytes:
        raise ProtocolError(f"a {what} has at most {max_bytes} bytes, not {len(frame)}")
    try:
        array = untrusted.unpack(frame, strict_map_key=True)
    except ValueError as error:
        raise ProtocolError(f"a {what} must be a msgpack array: {error}") from error
    if not isinstance(array, list):
        raise ProtocolError(f"a {what} must be a msgpack array, not {type(array).__name__}")
    return array


def _map(frame: bytes) -> dict[str, Any]:
    try:
        value = untrusted.unpack(frame, strict_map_key=True)
    except ValueError as error:
        raise ProtocolError(f"a status must be a msgpack map: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"a status must be a msgpack map, not {type(value).__name__}")
    return value


def _counts(values: list[Any], wanted: int) -> list[int]:
    """The first `wanted` of `values`, each an int from 0 to 2**63 - 1; what a newer sender adds is ignored."""
    counts = values[:wanted]
    if len(counts) < wanted or not all(type(value) is int and 0 <= value < _MAX_COUNT for value in counts):
        raise ProtocolError(f"a header needs {wanted} numbers from 0 to 2**63 - 1 after the writer")
    return counts


def _writer_or_none(header: list[Any]) -> bytes | None:
    writer = header[2] if len(header) > 2 else None
    return writer if type(writer) is bytes and len(writer) == WRITER_ID_BYTES else None
