"""The payloads of a tee's records, laid out by hand: msgpack would be a tenth of what it takes in memory.

Pure. Each is what `events.pack` gives, in fixed widths (msgpack spec: fixarray, uint 64, bin 16, str 16).
"""

from __future__ import annotations

import struct

from allranks_bus.tee.limits import Loss

_OPEN, _CLOSE, _DROPPED, _CONSOLE, _ERROR_FILE = 0, 8, 9, 10, 15
_HEAD = struct.Struct(">BBBQ")
_CHUNK_HEAD = struct.Struct(">BBBQBBH")
_ARRAY, _UINT64, _BIN16 = 0x90, 0xCF, 0xC5
MAX_CHUNK_BYTES = 2**16 - 1


def stamped(opening: bytes, time_ns: int) -> bytes:
    """The OPEN payload `opening` with another time; its own must be one that takes 64 bits, as any of today does."""
    return _HEAD.pack(_ARRAY | 3, _OPEN, _UINT64, time_ns) + opening[_HEAD.size :]


def console(time_ns: int, stream: int, chunk: bytes) -> bytes:
    """A CONSOLE payload; at most MAX_CHUNK_BYTES."""
    return _CHUNK_HEAD.pack(_ARRAY | 4, _CONSOLE, _UINT64, time_ns, stream, _BIN16, len(chunk)) + chunk


def error_file(time_ns: int, content: bytes) -> bytes:
    """An ERROR_FILE payload; at most MAX_CHUNK_BYTES of content."""
    return _HEAD.pack(_ARRAY | 3, _ERROR_FILE, _UINT64, time_ns) + struct.pack(">BH", _BIN16, len(content)) + content


def close(time_ns: int) -> bytes:
    """A CLOSE payload that tells nothing: how the rank ended is told by the rank."""
    return _HEAD.pack(_ARRAY | 3, _CLOSE, _UINT64, time_ns) + b"\x80"


def dropped(time_ns: int, loss: Loss, reason: str) -> bytes:
    """A DROPPED payload."""
    text = reason.encode("utf-8", "replace")[:1024]
    fields = (
        *(b"\x84", b"\xa7records", struct.pack(">BQ", _UINT64, loss.records)),
        *(b"\xa5bytes", struct.pack(">BQ", _UINT64, loss.size)),
        *(b"\xa5lines", struct.pack(">BQ", _UINT64, loss.lines)),
        *(b"\xa6reason", struct.pack(">BH", 0xDA, len(text)), text),
    )
    return _HEAD.pack(_ARRAY | 3, _DROPPED, _UINT64, time_ns) + b"".join(fields)
