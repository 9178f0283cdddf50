"""Records: the framing that makes a torn or broken one recognisable, in the spool and on the wire alike.

     0        4        8                8+length
     ┌────────┬────────┬──────────────────┐
     │ length │ crc32  │ payload          │
     │ u32 LE │ u32 LE │ one msgpack array│
     └────────┴────────┴──────────────────┘

Pure: bytes in, bytes out. docs/protocol.md §3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

HEADER = struct.Struct("<II")
MAX_PAYLOAD_BYTES = 4 * 1024 * 1024


def frame(payload: bytes) -> bytes:
    """`payload` as a record."""
    return HEADER.pack(len(payload), crc32(payload)) + payload


def scan(buffer: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
    """The payloads in `buffer`, as (begin, end) offsets; stops without an error before the first record that is
    cut short, too long or fails its checksum. The last `end` says how far the buffer is good.
    """
    unpack_header = HEADER.unpack_from
    view = memoryview(buffer)
    total = len(view)
    while start + 8 <= total:
        length, checksum = unpack_header(view, start)
        begin = start + 8
        start = begin + length
        if not 0 < length <= MAX_PAYLOAD_BYTES or start > total or crc32(view[begin:start]) != checksum:
            return
        yield begin, start
