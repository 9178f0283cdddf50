"""Events: what a record's payload says, and how each kind is packed.

A payload is a msgpack array `[kind, time_ns, …]`; docs/protocol.md §3 lists the kinds. METRICS, the kind that a
training loop makes thousands of, is packed by one `struct` call that lays out valid msgpack in fixed widths: it
costs half of what a general packer takes, and the same call checks that every value is a number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, cast

import msgpack

from allranks_bus import untrusted
from allranks_bus.errors import ProtocolError
from allranks_bus.limits import MAX_WORLD_SIZE
from allranks_bus.records import MAX_PAYLOAD_BYTES

MAX_NAME_BYTES = 1024
# bin 32 would need another layout; 8,191 doubles fill a bin 16. Wider events go as LOG.
MAX_FAST_VALUES = 8_191


class Kind(IntEnum):
    """The kinds of record, as numbered on the wire."""

    OPEN = 0
    METRICS = 1
    KEYSET = 2
    LOG = 3
    SYSTEM = 4
    CONFIG = 5
    SUMMARY = 6
    DEFINE = 7
    CLOSE = 8
    DROPPED = 9
    CONSOLE = 10
    ALERT = 11
    STACKS = 12
    SECTIONS = 13
    SURROUNDINGS = 14
    ERROR_FILE = 15


# The parts of a METRICS payload that do not change: msgpack's type bytes (fixarray of 5, positive fixint, uint 64,
# int 64, uint 32, bin 16; msgpack spec) around the fields.
METRICS_HEAD = bytes((0x95, Kind.METRICS, 0xCF))
STEP_TAG = b"\xd3"
METRICS_OVERHEAD_BYTES = 28


def metrics_packer(count: int) -> Callable[..., bytes]:
    """The packer of METRICS payloads with `count` values, for `log()`'s hot path.

    Called as `(METRICS_HEAD, time_ns, STEP_TAG, step, values_tag(keyset, count), *values)`. It raises `struct.error`
    where a value is not a number.
    """
    return struct.Struct(f">3sQcq8s{count}d").pack


def values_tag(keyset: int, count: int) -> bytes:
    """What stands between the step and the values: the keyset's number, and the size of the values."""
    return struct.pack(">BIBH", 0xCE, keyset, 0xC5, 8 * count)


def pack_metrics(time_ns: int, step: int, keyset: int, values: Sequence[float]) -> bytes:
    """A METRICS payload; at most MAX_FAST_VALUES values."""
    count = len(values)
    return metrics_packer(count)(METRICS_HEAD, time_ns, STEP_TAG, step, values_tag(keyset, count), *values)


def pack(kind: Kind, time_ns: int, *fields: Any) -> bytes:
    """The payload of any kind.

    Raises:
        ProtocolError: it would be larger than a record may be.
    """
    payload = cast("bytes", msgpack.packb((int(kind), time_ns, *fields), unicode_errors="replace"))
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ProtocolError(
            f"a record holds at most {MAX_PAYLOAD_BYTES} bytes, and this {kind.name} has {len(payload)}"
        )
    return payload


def unpack(payload: bytes | memoryview) -> list[Any]:
    """The array of a payload, with at least a kind (an int, known or not) and a time.

    Raises:
        ProtocolError: the payload is no such array.
    """
    try:
        event = untrusted.unpack(payload, strict_map_key=False)
    except ValueError as error:
        raise ProtocolError(f"a record's payload cannot be read: {error}") from error
    if (
        not isinstance(event, list)
        or len(event) < 2
        or type(event[0]) is not int
        or type(event[1]) is not int
        or not 0 <= event[1] < 2**63
    ):
        raise ProtocolError("a record's payload must be an array that begins with a kind and a time")
    return event


def check_identity(identity: Any) -> Mapping[str, Any]:
    """`identity` of an OPEN record where it holds all that it must (docs/protocol.md §4).

    Raises:
        ProtocolError: it is not a map, or a required key is missing or of the wrong type.
    """
    if not isinstance(identity, dict):
        raise ProtocolError(f"an OPEN record's identity must be a map, not {type(identity).__name__}")
    for key, kind in _REQUIRED_IDENTITY.items():
        value = identity.get(key)
        if type(value) is not kind:
            raise ProtocolError(f"an identity's {key!r} must be {kind.__name__}, not {untrusted.brief(value)}")
    if not 0 <= identity["rank"] < identity["world_size"] <= MAX_WORLD_SIZE:
        raise ProtocolError(
            f"an identity's rank must be 0 to world_size - 1, in a world of at most {MAX_WORLD_SIZE:,}, "
            f"not {identity['rank']} of {identity['world_size']}"
        )
    if not is_run_id(identity["run"]):
        raise ProtocolError(f"a run's id cannot be {untrusted.brief(identity['run'])}")
    return identity


_REQUIRED_IDENTITY: dict[str, type] = {
    "run": str,
    "project": str,
    "launch": str,
    "rank": int,
    "world_size": int,
    "host": str,
    "pid": int,
}


def is_run_id(text: str) -> bool:
    """True where `text` may name a run: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`."""
    return (
        0 < len(text) <= 128
        and text.isascii()
        and text[0].isalnum()
        and all(character.isalnum() or character in "._-" for character in text)
    )
