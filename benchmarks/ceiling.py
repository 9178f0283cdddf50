"""The ceiling of the data plane on this machine: the same work with nothing around it.

A producer appends each event to a file and sends what it has appended every 20 ms; the collector checks and unpacks
each record, commits all that waits in one DuckDB transaction together with the producers' positions, and acks. There
are no writers to open, no health, no statistics, no HTTP, no resending: whatever a real collector does more, it pays
for against this.

Run as `python -m benchmarks.workers.ceiling_collector` and `…ceiling_producer`; here is what both share.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgpack
import numpy as np

HEADER = struct.Struct("<II")
NAME_BYTES = 8
POSITION = struct.Struct("<Q")
CHUNK_RECORDS = 1000
TICK_S = 0.02

Message = tuple[int, list[Any], bytes]

SCHEMA = (
    "CREATE TABLE points (run INTEGER, key INTEGER, rank INTEGER, step BIGINT, time_ns BIGINT, value DOUBLE)",
    "CREATE TABLE positions (stream VARCHAR PRIMARY KEY, next BIGINT)",
)


def stream_name(producer: int) -> bytes:
    """The producer's name, which is also the topic of its acks."""
    return b"s%07d" % producer


def framed(payload: bytes) -> bytes:
    """A record with its length and checksum."""
    return HEADER.pack(len(payload), crc32(payload)) + payload


def decode(messages: Sequence[Message], key_numbers: dict[str, int]) -> tuple[dict[str, Any], dict[bytes, int], int]:
    """The columns of `points`, each stream's new position, and how many events that were."""
    unpack: Callable[..., Any] = msgpack.unpackb
    by_key: dict[str, tuple[list[int], list[int], list[int], list[float]]] = {}
    positions: dict[bytes, int] = {}
    events = 0
    for rank, header, body in messages:
        view, at, end = memoryview(body), 0, len(body)
        while at < end:
            length, _ = HEADER.unpack_from(body, at)
            at += HEADER.size
            _, step, time_ns, values = unpack(view[at : at + length])
            at += length
            events += 1
            for key, value in values.items():
                column = by_key.get(key)
                if column is None:
                    column = by_key[key] = ([], [], [], [])
                column[0].append(rank)
                column[1].append(step)
                column[2].append(time_ns)
                column[3].append(value)
        positions[header[1]] = header[2] + header[3]
    return _columns(by_key, key_numbers), positions, events


def _columns(by_key: dict[str, Any], key_numbers: dict[str, int]) -> dict[str, Any]:
    keys: list[Any] = []
    others: tuple[list[Any], ...] = ([], [], [], [])
    for key, column in by_key.items():
        number = key_numbers.setdefault(key, len(key_numbers))
        keys.append(np.full(len(column[3]), number, np.int32))
        for into, values, kind in zip(others, column, (np.int32, np.int64, np.int64, np.float64), strict=True):
            into.append(np.array(values, kind))
    rank, step, time_ns, value = (np.concatenate(arrays) for arrays in others)
    return {
        "run": np.zeros(len(value), np.int32),
        "key": np.concatenate(keys),
        "rank": rank,
        "step": step,
        "time_ns": time_ns,
        "value": value,
    }
