"""What a hostile or broken peer may send: each attack is a function that sends all of its own."""

from __future__ import annotations

import contextlib
import random
import socket
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgpack
import zmq

from allranks_bus import events, records
from allranks_bus.addresses import Address
from allranks_bus.events import Kind
from allranks_bus.wire import Beat, pack_batch_header, pack_beat, pack_chunk_header

_SEED = 7
_MIB = 1024 * 1024
IDENTITY: dict[str, Any] = {
    "run": "hostile",
    "project": "p",
    "launch": "l",
    "rank": 0,
    "world_size": 1,
    "host": "h",
    "pid": 1,
}
FILE: dict[str, Any] = {
    "run": "hostile",
    "project": "p",
    "launch": "l",
    "host": "h",
    "name": "a/b",
    "size": 1,
    "modified": 1,
}
# Values that no field of an identity should have, and that each of them gets in turn.
_WILD: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**64 - 1,
    1e308,
    "",
    "\0",
    "x" * _MIB,
    "../../etc",
    b"\xff" * 16,
    [],
    {},
    [[1]],
)


def _pack(value: object) -> bytes:
    return cast("bytes", msgpack.packb(value))


class Attacker:
    """A peer that sends whatever it likes.

    Args:
        address: of the collector's data socket.
        http: of its API.
        victim: the name of a healthy writer.
    """

    def __init__(self, address: Address, http: str, victim: bytes) -> None:
        self.address = address
        self.http = http
        self.victim = victim
        self.random = random.Random(_SEED)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._push = self._context.socket(zmq.PUSH)
        self._push.set(zmq.SNDTIMEO, 30_000)
        self._push.set(zmq.LINGER, 30_000)
        self._push.connect(address.data)

    def send(self, *frames: bytes) -> None:
        self._push.send_multipart(frames)

    def batch(self, body: bytes, count: int = 1, *, name: bytes = b"", first: int = 0, base: int = 0) -> None:
        """A batch that is right but for its body; by a writer of its own where no name is given."""
        self.send(pack_batch_header(name or self.random.randbytes(16), first, count, base, 1), body)

    def records(self, *payloads: bytes) -> None:
        """A batch of these payloads by a new writer that opens as it should."""
        opening = events.pack(Kind.OPEN, 1, IDENTITY)
        body = b"".join(map(records.frame, (opening, *payloads)))
        self.batch(body, 1 + len(payloads))

    def offer(self, **fields: Any) -> bytes:
        """Offers a file that is right but for these fields, as a transfer of its own; that one's name."""
        transfer = self.random.randbytes(16)
        body = cast("bytes", msgpack.packb({**FILE, **fields}, unicode_errors="surrogatepass"))
        self.send(_pack((1, 3, self.random.randbytes(16), transfer, 1)), body)
        return transfer

    def close(self) -> None:
        self._push.close()
        self._context.term()


def random_bytes(attacker: Attacker) -> None:
    """On the data and the control port, without any protocol."""
    for port in (attacker.address.port, attacker.address.port + 1):
        for size in (1, 10, 64, 1000, _MIB):
            with contextlib.suppress(OSError), socket.create_connection((attacker.address.host, port), 10) as peer:
                peer.sendall(attacker.random.randbytes(size))


def garbage_frames(attacker: Attacker) -> None:
    """Any number of frames with anything in them."""
    for _ in range(2000):
        frames = [attacker.random.randbytes(attacker.random.choice((0, 1, 7, 40, 400))) for _ in range(5)]
        attacker.send(*frames[: attacker.random.randint(1, 5)])


def flipped_and_cut(attacker: Attacker) -> None:
    """Messages that were right, until a bit was flipped, or the end was cut off."""
    opening = events.pack(Kind.OPEN, 1, IDENTITY)
    payloads = (opening, events.pack(Kind.KEYSET, 1, 0, ["a", "b"]), *[events.pack_metrics(1, 1, 0, [1.0, 2.0])] * 40)
    body = b"".join(map(records.frame, payloads))
    for _ in range(1000):
        header = pack_batch_header(attacker.random.randbytes(16), 0, len(payloads), 0, 1)
        message = bytearray(header + body)
        message[attacker.random.randrange(len(message))] ^= 1 << attacker.random.randrange(8)
        cut = attacker.random.choice((len(message), attacker.random.randrange(len(header), len(message))))
        attacker.send(bytes(message[: len(header)]), bytes(message[len(header) : cut]))


def huge_numbers(attacker: Attacker) -> None:
    """Counts, seqs and sizes beyond what is or can be there."""
    name = attacker.random.randbytes(16)
    for count in (0, 65_536, 65_537, 2**63, 2**64 - 1):
        for seq in (0, 2**62, 2**63 - 1, 2**64 - 1):
            attacker.send(_pack((1, 1, name, seq, count, seq, 1)), b"")
    for body in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        attacker.send(body, body)
        attacker.send(_pack((1, 2, name, 0, 0, 1)), body)
        attacker.records(body)
    attacker.batch(b"\xff\xff\xff\xff" * 8)
    opening = records.frame(events.pack(Kind.OPEN, 1, IDENTITY))
    for seq in (2**62, 2**63 - 1):
        attacker.batch(opening, first=seq, base=seq)
    attacker.records(*[events.pack(Kind.DROPPED, 2**63 - 1, {"records": 2**62, "reason": ""})] * 3)
    attacker.records(events.pack(Kind.LOG, 2**63 - 1, -(2**63), {"least": -(2**63), "most": 2**64 - 1}))
    for _ in range(20_000):  # which take no bytes, but memory
        attacker.batch(b"", 65_536)


def other_versions(attacker: Attacker) -> None:
    """Of the future, of the past, and of no kind at all."""
    for version in (0, 2, 2**64 - 1, -1, 1.0, True, None, "1" * _MIB, [1]):
        for _ in range(100):
            attacker.send(_pack((version, 1, attacker.random.randbytes(16), 0, 1, 0, 1)), b"")


def anothers_name(attacker: Attacker) -> None:
    """Batches in the name of a healthy writer, with seqs that it has not come to."""
    junk = records.frame(events.pack_metrics(1, 1, 0, [1.0])) * 10
    for first in (10**9, 2**62, 0, 1):
        attacker.batch(junk, 10, name=attacker.victim, first=first, base=0)
    attacker.send(*pack_beat(Beat(attacker.victim, 0, 0, 1, {"step": 2**60, "drained": "no"})))


def unknown_writers(attacker: Attacker) -> None:
    """Ten thousand names that nobody has heard of, with beats, and with batches that begin in the middle."""
    for _ in range(10_000):
        attacker.send(*pack_beat(Beat(attacker.random.randbytes(16), 5, 0, 1, {"step": 1})))
    for _ in range(1000):
        attacker.batch(records.frame(events.pack_metrics(1, 1, 0, [1.0])))


def deep_nests(attacker: Attacker) -> None:
    """Arrays in arrays in arrays, and maps in maps."""
    for depth in (100, 400, 900, 1100, 100_000):
        array, map_ = b"\x91" * depth + b"\x01", b"\x81\xa1a" * depth + b"\x01"
        for nest in (array, map_):
            attacker.send(nest, nest)
            attacker.send(_pack((1, 2, attacker.random.randbytes(16), 0, 0, 1)), nest)
            attacker.records(nest)
            attacker.records(b"\x94\x03\x01\x01\x82\xa1x\x01\xa1y" + nest)  # LOG {x: 1, y: nest}
            attacker.records(b"\x93\x08\x01" + nest, b"\x93\x05\x01" + nest, b"\x93\x63\x01" + nest)
            attacker.batch(records.frame(b"\x93\x00\x01" + nest))


def long_names(attacker: Attacker) -> None:
    """Names, keys and texts of a megabyte."""
    name = "n" * _MIB
    attacker.records(events.pack(Kind.KEYSET, 1, 0, [name]))
    attacker.records(events.pack(Kind.LOG, 1, 1, {name: 1.0}))
    attacker.records(events.pack(Kind.LOG, 1, 1, {"\0": "\0", "ok": 1.0}))
    attacker.records(events.pack(Kind.CONFIG, 1, {name: 1}))
    attacker.records(events.pack(Kind.DEFINE, 1, name, {"summary": name}))
    attacker.records(events.pack(Kind.DROPPED, 1, {"records": 2**64 - 1, "reason": name}))
    attacker.records(events.pack(Kind.KEYSET, 1, 0, []), *[events.pack_metrics(1, 1, 0, [])] * 64)


def wild_identities(attacker: Attacker) -> None:
    """OPEN with every field of a wrong type, size or meaning."""
    known = (*IDENTITY, "local_rank", "node_rank", "pid_start", "boot_id", "pid_ns", "role", "parent", "group")
    for field in (*known, "name", "notes", "tags", "launcher", "started", "spool", "destination", "argv"):
        for value in _WILD:
            opening = events.pack(Kind.OPEN, 1, {**IDENTITY, field: value})
            attacker.batch(records.frame(opening))


def wild_records(attacker: Attacker) -> None:
    """Records of every kind with fields of every type."""
    for kind in (*range(11), 127, 2**63):
        for fields in _wild_fields():
            attacker.records(_pack((kind, 1, *fields)))


def _wild_fields() -> Iterator[tuple[Any, ...]]:
    yield ()
    short = [value for value in _WILD if value != "x" * _MIB]
    for value in short:
        yield (value,)
        yield (1, value)
        yield (value, {"records": value})
        yield (1, 0, value)


def wild_files(attacker: Attacker) -> None:
    """Files with every field of a wrong type, size or meaning, and names that lead elsewhere."""
    for field in (*FILE, "rank"):
        for value in _WILD:
            attacker.offer(**{field: value})
    for name in (
        "/etc/passwd",
        "../../../etc/passwd",
        "a/../../b",
        "a//b",
        "C:\\x",
        "\x1b[2J",
        "a" * 60_000,
        "a\ud800",
    ):
        attacker.offer(name=name)
    for body in (b"", b"\xc1", b"\x90", b"\xdf\xff\xff\xff\xff", b"\x81\xa1a" * 900 + b"\x01"):
        attacker.send(_pack((1, 3, attacker.random.randbytes(16), attacker.random.randbytes(16), 1)), body)
        for kind in (5, 6):
            attacker.send(_pack((1, kind, attacker.random.randbytes(16), attacker.random.randbytes(16), 1)), body)


def files_without_end(attacker: Attacker) -> None:
    """More transfers than anybody can send, pieces of files that nobody offered, and pieces of one that never fit."""
    for _ in range(100_000):
        attacker.offer(size=attacker.random.choice((0, 1, 2**20, 2**40, 2**63 - 1)))
    sender = attacker.random.randbytes(16)
    for _ in range(2000):
        attacker.send(_pack((1, 5, sender, attacker.random.randbytes(16), 0)), b"\x80")
        attacker.send(_pack((1, 6, sender, attacker.random.randbytes(16))), b"\x80")
    piece = attacker.random.randbytes(_MIB)
    for _ in range(300):
        header = pack_chunk_header(sender, attacker.random.randbytes(16), 0, zlib.crc32(piece))
        attacker.send(header, piece)
    transfer = attacker.offer(size=10 * _MIB)
    for offset in (*range(300), 2**62, 2**63 - 1):
        attacker.send(pack_chunk_header(sender, transfer, offset, offset % 2**32), piece)
        attacker.send(_pack((1, 5, sender, transfer, offset)), b"\x80")


def http_garbage(attacker: Attacker) -> None:
    """Requests that are none, are too large, or come from elsewhere."""
    host, _, port = attacker.http.removeprefix("http://").rpartition(":")
    for request in (
        b"\0" * 1000,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * _MIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
        attacker.random.randbytes(5000),
    ):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 10) as peer:
            peer.sendall(request)
    for path in ("/api/runs/x/files/%2e%2e/%2e%2e/allranks.duckdb", "/api/runs/hostile/files/" + "a/" * 2000):
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(attacker.http + path, timeout=60).close()
    for path in ("/api/runs/%00", "/static/../../../etc/passwd", "/api/runs/x/metrics?key=" + "k" * 5000, "/%ff"):
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(attacker.http + path, timeout=60).close()


ATTACKS: tuple[Callable[[Attacker], None], ...] = (
    random_bytes,
    garbage_frames,
    flipped_and_cut,
    huge_numbers,
    other_versions,
    anothers_name,
    unknown_writers,
    deep_nests,
    long_names,
    wild_identities,
    wild_records,
    wild_files,
    files_without_end,
    http_garbage,
)
