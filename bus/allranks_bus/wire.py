"""Messages: what goes up from a writer and down from the collector, as two frames each.

     up    header [version, type, sender, …]     body: records, a map, or a piece of a file
     down  topic  the sender's 16 bytes           msgpack array [version, type, …]

The sender is a writer, or a process that ships files (`Offer`, `Chunk`, `End`, `Abort`).

Pure: values in, frames out, and back with every field checked. docs/protocol.md §6, §7 and §10.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import msgpack

from allranks_bus import untrusted
from allranks_bus.errors import ProtocolError, VersionMismatch
from allranks_bus.events import is_run_id
from allranks_bus.limits import MAX_BATCH_RECORDS as MAX_BATCH_RECORDS
from allranks_bus.limits import MAX_WORLD_SIZE
from allranks_bus.limits import WRITER_ID_BYTES as WRITER_ID_BYTES
from allranks_bus.version import PROTOCOL_VERSION

TRANSFER_ID_BYTES = 16
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_BEAT_BYTES = 64 * 1024
MAX_OFFER_BYTES = 64 * 1024
MAX_CHUNK_BYTES = 1024 * 1024
# A header has eight small fields; the rest is room for what a newer sender adds.
MAX_HEADER_BYTES = 1024
MAX_CONTROL_BYTES = 1024 * 1024
# A little more than the largest frame: ZeroMQ cuts off a peer that sends more.
MAX_MESSAGE_BYTES = MAX_BATCH_BYTES + 4096

_BATCH, _BEAT, _OFFER, _CHUNK, _END, _ABORT = 1, 2, 3, 4, 5, 6
_ACK, _RESEND, _COMMAND, _REFUSED, _FILE_AT, _FILE_STORED, _FILE_REFUSED = 1, 2, 3, 4, 5, 6, 7
_MAX_COUNT = 2**63
_EMPTY_MAP = b"\x80"
_DIGEST = re.compile("[0-9a-f]{64}")


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


# Beats and acks are thousands a second, and a named tuple is made in a third of the time.
class Beat(NamedTuple):
    """A writer's sign of life, once a second; `status` is its map as it came."""

    writer: bytes
    next_seq: int
    base: int
    sent_ns: int
    status: Mapping[str, Any]


@dataclass(frozen=True)
class Offer:
    """A file that `sender` wants to send as `transfer`.

    Attributes:
        transfer: 16 bytes that follow from the file and its state, so that another process goes on where one died.
        name: as it came; `files.names.check_file_name` tells whether it may be one.
        size: in bytes.
        modified_ns: when the file was last written to.
        rank: whose file it is; None where it is nobody's in particular.
    """

    sender: bytes
    transfer: bytes
    sent_ns: int
    run: str
    project: str
    launch: str
    host: str
    name: str
    size: int
    modified_ns: int
    rank: int | None = None


@dataclass(frozen=True)
class Chunk:
    """The bytes of a file from `offset` on, and their CRC-32, which has not been checked yet."""

    sender: bytes
    transfer: bytes
    offset: int
    crc32: int
    body: bytes | memoryview


@dataclass(frozen=True)
class End:
    """All `size` bytes of a file have been sent, and it was the same file at the end as at the start."""

    sender: bytes
    transfer: bytes
    size: int


@dataclass(frozen=True)
class Abort:
    """What came of this transfer is to be forgotten: the file has changed under way."""

    sender: bytes
    transfer: bytes


class Ack(NamedTuple):
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


@dataclass(frozen=True)
class FileAt:
    """All bytes of a file before `offset` are with the collector: send from there on."""

    transfer: bytes
    offset: int


@dataclass(frozen=True)
class FileStored:
    """A file is stored and listed; `digest` is its SHA-256 in hex."""

    transfer: bytes
    digest: str


@dataclass(frozen=True)
class FileRefused:
    """The collector cannot take a file: not now (a full disk), or, with `is_final`, not ever (its name)."""

    transfer: bytes
    reason: str
    is_final: bool


# What a socket gives: a large frame is not copied.
Frame: TypeAlias = bytes | memoryview
FileUp: TypeAlias = Offer | Chunk | End | Abort
FileDown: TypeAlias = FileAt | FileStored | FileRefused
Up: TypeAlias = Batch | Beat | FileUp
Down: TypeAlias = Ack | Command | Refused | FileDown


def pack_batch_header(
    writer: bytes, first_seq: int, count: int, base: int, sent_ns: int, *, is_urgent: bool = False
) -> bytes:
    """The header frame of a batch; its body frame is the records as they lie in the spool."""
    return _pack((PROTOCOL_VERSION, _BATCH, writer, first_seq, count, base, sent_ns, int(is_urgent)))


def pack_beat(beat: Beat) -> tuple[bytes, bytes]:
    """Both frames of a beat."""
    header = _pack((PROTOCOL_VERSION, _BEAT, beat.writer, beat.next_seq, beat.base, beat.sent_ns))
    return header, _pack(dict(beat.status))


def pack_offer(offer: Offer) -> tuple[bytes, bytes]:
    """Both frames of an offer."""
    header = _pack((PROTOCOL_VERSION, _OFFER, offer.sender, offer.transfer, offer.sent_ns))
    told: dict[str, Any] = {key: getattr(offer, key) for key in ("run", "project", "launch", "host", "name", "size")}
    told["modified"] = offer.modified_ns
    if offer.rank is not None:
        told["rank"] = offer.rank
    return header, _pack(told)


def pack_chunk_header(sender: bytes, transfer: bytes, offset: int, crc32: int) -> bytes:
    """The header frame of a chunk; its body frame is the bytes as they lie in the file."""
    return _pack((PROTOCOL_VERSION, _CHUNK, sender, transfer, offset, crc32))


def pack_end(end: End) -> tuple[bytes, bytes]:
    """Both frames of the end of a file."""
    return _pack((PROTOCOL_VERSION, _END, end.sender, end.transfer, end.size)), _EMPTY_MAP


def pack_abort(abort: Abort) -> tuple[bytes, bytes]:
    """Both frames of an abort."""
    return _pack((PROTOCOL_VERSION, _ABORT, abort.sender, abort.transfer)), _EMPTY_MAP


def unpack_up(frames: Sequence[Frame]) -> Up:
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
    read = _READERS.get(kind) if type(kind) is int else None
    if read is None:
        raise ProtocolError(f"a message cannot be of type {untrusted.brief(kind)}")
    return read(writer, rest, frames[1])


def pack_down(message: Down) -> bytes:
    """The second frame of a message to a writer; the first is the writer's name."""
    fields: tuple[Any, ...]
    if isinstance(message, Ack):
        kind = _RESEND if message.resend else _ACK
        fields = (kind, message.next_seq, message.collector, message.sent_ns)
    elif isinstance(message, Command):
        fields = (_COMMAND, message.name, dict(message.arguments))
    elif isinstance(message, Refused):
        fields = (_REFUSED, message.reason)
    elif isinstance(message, FileAt):
        fields = (_FILE_AT, message.transfer, message.offset)
    elif isinstance(message, FileStored):
        fields = (_FILE_STORED, message.transfer, message.digest)
    else:
        fields = (_FILE_REFUSED, message.transfer, message.reason, message.is_final)
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
    if kind in (_FILE_AT, _FILE_STORED, _FILE_REFUSED) and len(rest) >= 2:
        transfer, told = _transfer(rest), rest[1]
        if kind == _FILE_AT:
            return FileAt(transfer, *_counts([told], 1))
        if kind == _FILE_STORED and type(told) is str and _DIGEST.fullmatch(told):
            return FileStored(transfer, told)
        if kind == _FILE_REFUSED and type(told) is str and len(rest) >= 3 and type(rest[2]) is bool:
            return FileRefused(transfer, told, rest[2])
    raise ProtocolError(f"a control message cannot be of type {untrusted.brief(kind)} with these fields")


def _batch(writer: bytes, rest: list[Any], body: Frame) -> Batch:
    first_seq, count, base, sent_ns = _counts(rest, 4)
    if not 1 <= count <= MAX_BATCH_RECORDS or len(body) > MAX_BATCH_BYTES:
        raise ProtocolError(f"a batch cannot hold {count} records in {len(body)} bytes")
    return Batch(writer, first_seq, count, base, sent_ns, bytes(body), is_urgent=rest[4:5] == [1])


def _beat(writer: bytes, rest: list[Any], body: Frame) -> Beat:
    next_seq, base, sent_ns = _counts(rest, 3)
    return Beat(writer, next_seq, base, sent_ns, _map(body, "status", MAX_BEAT_BYTES))


def _offer(sender: bytes, rest: list[Any], body: Frame) -> Offer:
    transfer = _transfer(rest)
    (sent_ns,) = _counts(rest[1:], 1)
    told = _map(body, "offer", MAX_OFFER_BYTES)
    texts = [told.get(key) for key in ("run", "project", "launch", "host", "name")]
    if not all(type(text) is str for text in texts):
        raise ProtocolError("an offer's run, project, launch, host and name must be text")
    run, project, launch, host, name = cast("list[str]", texts)
    if not is_run_id(run):
        raise ProtocolError(f"a run's id cannot be {untrusted.brief(run)}")
    size, modified_ns = _counts([told.get("size"), told.get("modified")], 2)
    rank = told.get("rank")
    if rank is not None and not (type(rank) is int and 0 <= rank < MAX_WORLD_SIZE):
        raise ProtocolError(f"an offer's rank cannot be {untrusted.brief(rank)}")
    return Offer(sender, transfer, sent_ns, run, project, launch, host, name, size, modified_ns, rank)


def _chunk(sender: bytes, rest: list[Any], body: Frame) -> Chunk:
    transfer = _transfer(rest)
    offset, crc32 = _counts(rest[1:], 2)
    if not 1 <= len(body) <= MAX_CHUNK_BYTES or crc32 >= 2**32:
        raise ProtocolError(f"a chunk has 1 to {MAX_CHUNK_BYTES} bytes and a CRC-32, not {len(body)} and {crc32}")
    return Chunk(sender, transfer, offset, crc32, body)


def _end(sender: bytes, rest: list[Any], body: Frame) -> End:
    transfer = _transfer(rest)
    (size,) = _counts(rest[1:], 1)
    _map(body, "body", MAX_HEADER_BYTES)
    return End(sender, transfer, size)


def _abort(sender: bytes, rest: list[Any], body: Frame) -> Abort:
    transfer = _transfer(rest)
    _map(body, "body", MAX_HEADER_BYTES)
    return Abort(sender, transfer)


_READERS: Mapping[int, Callable[[bytes, list[Any], Frame], Up]] = {
    _BATCH: _batch,
    _BEAT: _beat,
    _OFFER: _offer,
    _CHUNK: _chunk,
    _END: _end,
    _ABORT: _abort,
}


def _transfer(rest: list[Any]) -> bytes:
    transfer = rest[0] if rest else None
    if type(transfer) is not bytes or len(transfer) != TRANSFER_ID_BYTES:
        raise ProtocolError(f"a transfer's name is {TRANSFER_ID_BYTES} bytes, not {untrusted.brief(transfer)}")
    return transfer


def _pack(value: object) -> bytes:
    return cast("bytes", msgpack.packb(value, unicode_errors="replace"))


def _array(frame: Frame, what: str, max_bytes: int) -> list[Any]:
    if len(frame) > max_bytes:
        raise ProtocolError(f"a {what} has at most {max_bytes} bytes, not {len(frame)}")
    try:
        array = untrusted.unpack(frame, strict_map_key=True)
    except ValueError as error:
        raise ProtocolError(f"a {what} must be a msgpack array: {error}") from error
    if not isinstance(array, list):
        raise ProtocolError(f"a {what} must be a msgpack array, not {type(array).__name__}")
    return array


def _map(frame: Frame, what: str, max_bytes: int) -> dict[str, Any]:
    if len(frame) > max_bytes:
        raise ProtocolError(f"a message's {what} has at most {max_bytes} bytes, not {len(frame)}")
    try:
        value = untrusted.unpack(frame, strict_map_key=True)
    except ValueError as error:
        raise ProtocolError(f"a message's {what} must be a msgpack map: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError(f"a message's {what} must be a msgpack map, not {type(value).__name__}")
    return value


def _counts(values: list[Any], wanted: int) -> list[int]:
    """The first `wanted` of `values`, each an int from 0 to 2**63 - 1; what a newer sender adds is ignored."""
    counts = values[:wanted]
    for value in counts:
        if type(value) is not int or not 0 <= value < _MAX_COUNT:
            break
    else:
        if len(counts) == wanted:
            return counts
    raise ProtocolError(
        f"a message needs {wanted} numbers from 0 to 2**63 - 1 where these are: {untrusted.brief(counts)}"
    )


def _writer_or_none(header: list[Any]) -> bytes | None:
    writer = header[2] if len(header) > 2 else None
    return writer if type(writer) is bytes and len(writer) == WRITER_ID_BYTES else None
