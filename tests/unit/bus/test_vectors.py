"""The test vectors of the protocol: our code makes them, and takes them; the page and the code tell the same."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from allranks_bus import events, records, wire
from allranks_bus.errors import ProtocolError
from allranks_bus.events import Kind
from allranks_bus.files.names import MAX_FILE_NAME_BYTES, transfer_id
from allranks_bus.spool_reader import SpoolReader
from allranks_bus.version import PROTOCOL_VERSION
from allranks_bus.wire import (
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
    FileUp,
    Offer,
    Refused,
)

_ROOT = Path(__file__).parents[3]
_MAKE = _ROOT / "tests" / "vectors" / "make_vectors.py"
_PAGE = (_ROOT / "docs" / "protocol.md").read_text()
VECTORS: dict[str, Any] = json.loads((_ROOT / "tests" / "vectors" / "protocol-v1.json").read_text())

TIME = 1_700_000_000_123_456_789
WRITER = bytes(range(16))
COLLECTOR = bytes(range(16, 32))

_DOWN: dict[str, Down] = {
    "ACK": Ack(16, COLLECTOR, TIME),
    "RESEND": Ack(2, COLLECTOR, TIME, resend=True),
    "COMMAND": Command("dump_stacks", {"all": True}),
    "REFUSED": Refused("a run's id cannot be that"),
}

SENDER = bytes(range(32, 48))
TRANSFER = bytes.fromhex(VECTORS["file"]["transfer"])
FILE = b"weights of epoch 3"

_FILE_UP: dict[str, FileUp] = {
    "OFFER": Offer(
        SENDER, TRANSFER, TIME, "run-1", "vectors", "launch-1", "node1", "checkpoints/last.ckpt", len(FILE), TIME, 3
    ),
    "CHUNK": Chunk(SENDER, TRANSFER, 0, zlib.crc32(FILE), FILE),
    "END": End(SENDER, TRANSFER, len(FILE)),
    "ABORT": Abort(SENDER, TRANSFER),
}
_FILE_DOWN: dict[str, Down] = {
    "FILE_AT": FileAt(TRANSFER, 9),
    "FILE_STORED": FileStored(TRANSFER, hashlib.sha256(FILE).hexdigest()),
    "FILE_REFUSED": FileRefused(TRANSFER, "No space left on device", is_final=False),
}


def _packed(message: FileUp) -> tuple[bytes, wire.Frame]:
    if isinstance(message, Offer):
        return wire.pack_offer(message)
    if isinstance(message, Chunk):
        header = wire.pack_chunk_header(message.sender, message.transfer, message.offset, message.crc32)
        return header, message.body
    return wire.pack_end(message) if isinstance(message, End) else wire.pack_abort(message)


def _payload(record: str) -> bytes:
    content = bytes.fromhex(record)
    ((begin, end),) = records.scan(content)
    assert end == len(content)
    return content[begin:end]


def test_the_script_makes_the_file() -> None:
    """They cannot drift apart; and the script needs none of our packages."""
    made = subprocess.run([sys.executable, "-I", str(_MAKE)], stdout=subprocess.PIPE, check=True, timeout=60)
    assert json.loads(made.stdout) == VECTORS
    assert "allranks" not in _MAKE.read_text()


def test_there_is_a_vector_of_each_kind_and_type() -> None:
    """A kind that is added gets one."""
    assert set(VECTORS["records"]) == {kind.name for kind in Kind}
    assert set(VECTORS["up"]) == {"BATCH", "BATCH urgent", "BEAT"}
    assert set(VECTORS["down"]) == set(_DOWN)
    assert set(VECTORS["file"]["up"]) == set(_FILE_UP)
    assert set(VECTORS["file"]["down"]) == set(_FILE_DOWN)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.METRICS])
def test_our_records_are_those_of_the_vectors(kind: Kind) -> None:
    """Byte for byte, from what is read of them."""
    event = events.unpack(_payload(VECTORS["records"][kind.name]))
    assert event[:2] == [kind, TIME]
    assert records.frame(events.pack(kind, TIME, *event[2:])).hex() == VECTORS["records"][kind.name]


def test_our_metrics_are_those_of_the_vector() -> None:
    """In the fixed layout of the hot path."""
    payload = events.pack_metrics(TIME, 7, 0, [0.5, -1.25])
    assert records.frame(payload).hex() == VECTORS["records"]["METRICS"]
    assert events.unpack(payload)[:4] == [Kind.METRICS, TIME, 7, 0]


def test_the_vectors_identity_is_one() -> None:
    """With all that it must have."""
    event = events.unpack(_payload(VECTORS["records"]["OPEN"]))
    assert events.check_identity(event[2])["rank"] == 3


@pytest.mark.parametrize(("name", "is_urgent"), [("BATCH", False), ("BATCH urgent", True)])
def test_our_batches_are_those_of_the_vectors(name: str, is_urgent: bool) -> None:
    """Made and taken."""
    header, body = map(bytes.fromhex, VECTORS["up"][name])
    assert wire.pack_batch_header(WRITER, 0, 16, 0, TIME, is_urgent=is_urgent) == header
    assert wire.unpack_up([header, body]) == Batch(WRITER, 0, 16, 0, TIME, body, is_urgent)
    assert len(list(records.scan(body))) == 16


def test_our_beats_are_those_of_the_vector() -> None:
    """Made and taken."""
    frames = [bytes.fromhex(frame) for frame in VECTORS["up"]["BEAT"]]
    beat = wire.unpack_up(frames)
    assert isinstance(beat, Beat)
    assert list(wire.pack_beat(beat)) == frames
    assert (beat.writer, beat.next_seq, beat.base, beat.sent_ns) == (WRITER, 16, 0, TIME)
    assert beat.status["step"] == 8


@pytest.mark.parametrize("name", _DOWN)
def test_our_answers_are_those_of_the_vectors(name: str) -> None:
    """Made and taken."""
    topic, frame = map(bytes.fromhex, VECTORS["down"][name])
    assert topic == WRITER
    assert wire.pack_down(_DOWN[name]) == frame
    assert wire.unpack_down(frame) == _DOWN[name]


def test_our_transfers_have_the_names_of_the_vectors() -> None:
    """The same in every language: so any process goes on with a file where another one stopped."""
    inode: int = VECTORS["file"]["inode"]
    assert transfer_id("run-1", "node1", "checkpoints/last.ckpt", len(FILE), TIME, inode) == TRANSFER


@pytest.mark.parametrize("name", _FILE_UP)
def test_our_files_are_those_of_the_vectors(name: str) -> None:
    """Made and taken."""
    frames = [bytes.fromhex(frame) for frame in VECTORS["file"]["up"][name]]
    assert list(_packed(_FILE_UP[name])) == frames
    assert wire.unpack_up(frames) == _FILE_UP[name]


@pytest.mark.parametrize("name", _FILE_DOWN)
def test_our_answers_to_files_are_those_of_the_vectors(name: str) -> None:
    """Made and taken."""
    topic, frame = map(bytes.fromhex, VECTORS["file"]["down"][name])
    assert topic == SENDER
    assert wire.pack_down(_FILE_DOWN[name]) == frame
    assert wire.unpack_down(frame) == _FILE_DOWN[name]


def test_the_vectors_segment_is_a_spool(tmp_path: Path) -> None:
    """A publisher in another language may leave it for us to drain."""
    directory = tmp_path / VECTORS["writer"]
    directory.mkdir()
    (directory / VECTORS["segment"]["name"]).write_bytes(bytes.fromhex(VECTORS["segment"]["content"]))
    reader = SpoolReader(directory)
    assert (reader.name, reader.base, reader.end) == (WRITER, 0, VECTORS["segment"]["records"])
    assert reader.read(0) == (16, bytes.fromhex(VECTORS["segment"]["content"]))
    assert events.unpack(reader.opening())[0] == Kind.OPEN
    reader.remove()


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_has_the_kinds_that_the_code_has() -> None:
    """§3, number and name."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| `\[(\d+), time", _PAGE, re.MULTILINE)
    assert {(int(number), name) for number, name, _ in rows} == {(kind.value, kind.name) for kind in Kind}
    assert all(number == again for number, _, again in rows)


def test_the_page_has_the_types_that_the_code_has() -> None:
    """§6, §7 and §10; a vector of each is tested above."""
    rows = re.findall(r"^ ([A-Z_]+) +\[(\d), (\d), ", _PAGE, re.MULTILINE)
    assert [(name, int(number)) for name, version, number in rows if version == "1"] == [
        ("BATCH", 1), ("BEAT", 2), ("ACK", 1), ("RESEND", 2), ("COMMAND", 3), ("REFUSED", 4),
        ("OFFER", 3), ("CHUNK", 4), ("END", 5), ("ABORT", 6), ("FILE_AT", 5), ("FILE_STORED", 6), ("FILE_REFUSED", 7),
    ]  # fmt: skip


def test_the_page_has_the_required_keys_of_an_identity() -> None:
    """§4: those with a dot, and no others, must be there."""
    table = _PAGE.split("## 4. Identity")[1].split("## 5.")[0]
    required = set(re.findall(r"^\| `(\w+)` •", table, re.MULTILINE))
    identity = events.unpack(_payload(VECTORS["records"]["OPEN"]))[2]
    for key in identity:
        without = {name: value for name, value in identity.items() if name != key}
        if key in required:
            with pytest.raises(ProtocolError):
                events.check_identity(without)
        else:
            events.check_identity(without)
    assert required <= set(identity)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("1 … 4,194,304 bytes", records.MAX_PAYLOAD_BYTES),
        ("1 … 65,536 records", wire.MAX_BATCH_RECORDS),
        ("at most 1,024 bytes", events.MAX_NAME_BYTES),
        ("of at most 1,024 bytes", MAX_FILE_NAME_BYTES),
        ("1 … 1,048,576 bytes", wire.MAX_CHUNK_BYTES),
    ],
)
def test_the_page_has_the_limits_that_the_code_has(text: str, limit: int) -> None:
    """Written as numbers."""
    assert text in _PAGE
    assert f"{limit:,}" in text


def test_the_page_has_the_version_that_the_code_speaks() -> None:
    """In its title."""
    assert _PAGE.startswith(f"# The allranks protocol, version {PROTOCOL_VERSION}\n")
    assert VECTORS["protocol"] == PROTOCOL_VERSION
