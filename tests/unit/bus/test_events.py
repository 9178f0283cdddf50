"""Events: how each kind is packed, and what of a stranger's bytes is taken for one."""

from __future__ import annotations

import resource
import struct
from collections.abc import Mapping
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_bus import events
from allranks_bus.errors import ProtocolError
from allranks_bus.events import (
    MAX_FAST_VALUES,
    METRICS_HEAD,
    METRICS_OVERHEAD_BYTES,
    STEP_TAG,
    Kind,
    check_identity,
    metrics_packer,
    pack,
    pack_metrics,
    unpack,
    values_tag,
)
from allranks_bus.records import MAX_PAYLOAD_BYTES
from allranks_bus.untrusted import MAX_DEPTH

TIME = 1_700_000_000_123_456_789
IDENTITY: dict[str, Any] = {
    "run": "run-1", "project": "p", "launch": "l", "rank": 3, "world_size": 8, "host": "node1", "pid": 77,
}  # fmt: skip

_FIELDS: Mapping[Kind, tuple[Any, ...]] = {
    Kind.OPEN: (IDENTITY,),
    Kind.METRICS: (5, 0, struct.pack(">2d", 1.5, -2.0)),
    Kind.KEYSET: (0, ["loss", "lr"]),
    Kind.LOG: (5, {"loss": 0.5, "sample": "a text", "hist": {"_type": "histogram", "bins": [0, 1], "counts": [3]}}),
    Kind.SYSTEM: (5, {"cpu": 12.5}),
    Kind.CONFIG: ({"lr": 0.1, "layers": [1, 2]},),
    Kind.SUMMARY: ({"best": 0.9},),
    Kind.DEFINE: ("val/*", {"step_metric": "epoch", "summary": "min"}),
    Kind.CLOSE: ({"exit_code": 0, "exception": None},),
    Kind.DROPPED: ({"records": 4, "reason": "disk full"},),
    Kind.CONSOLE: (1, b"epoch 3\r\xff"),
    Kind.STACKS: ({"token": "0" * 32, "how": "asked", "threads": []},),
    Kind.SURROUNDINGS: ({"env": {"NCCL_DEBUG": "INFO"}},),
    Kind.ERROR_FILE: (b'{"message": "ValueError: no"}',),
    Kind.SECTIONS: ({"from": 1, "to": 3, "seconds": 0.5, "sections": {"data": [3, 0.25, 0.125]}},),
    Kind.ALERT: ({"title": "diverged", "text": "loss is NaN", "level": "ERROR"},),
}


def _packed(value: object) -> bytes:
    return cast("bytes", msgpack.packb(value))


def test_the_table_of_this_test_has_every_kind() -> None:
    """A kind that is added is tested."""
    assert set(_FIELDS) == set(Kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_comes_back(kind: Kind) -> None:
    """What is packed is unpacked: kind, time and fields."""
    assert unpack(pack(kind, TIME, *_FIELDS[kind])) == [int(kind), TIME, *_FIELDS[kind]]


@given(
    time_ns=st.integers(0, 2**63 - 1),
    step=st.integers(-(2**63), 2**63 - 1),
    keyset=st.integers(0, 2**32 - 1),
    values=st.lists(st.floats(), max_size=30),
)
def test_pack_metrics_is_msgpack(time_ns: int, step: int, keyset: int, values: list[float]) -> None:
    """A general unpacker reads the fixed layout, and a bin of big-endian doubles in it."""
    payload = pack_metrics(time_ns, step, keyset, values)
    assert msgpack.unpackb(payload) == [1, time_ns, step, keyset, struct.pack(f">{len(values)}d", *values)]
    assert len(payload) == METRICS_OVERHEAD_BYTES + 8 * len(values)


def test_pack_metrics_holds_as_many_values_as_it_says() -> None:
    """The largest fast event is valid; one more does not fit the layout."""
    payload = pack_metrics(TIME, 0, 0, [1.0] * MAX_FAST_VALUES)
    assert len(msgpack.unpackb(payload)[4]) == 8 * MAX_FAST_VALUES
    with pytest.raises(struct.error):
        pack_metrics(TIME, 0, 0, [1.0] * (MAX_FAST_VALUES + 1))


@pytest.mark.parametrize("value", ["1.0", None, b"1", [1.0], {"a": 1}, 1j, object()])
def test_metrics_packer_refuses_what_is_no_number(value: object) -> None:
    """The call that packs is the one that checks."""
    with pytest.raises(struct.error):
        metrics_packer(2)(METRICS_HEAD, TIME, STEP_TAG, 0, values_tag(0, 2), 1.0, value)


@pytest.mark.parametrize("step", [1.5, "1", None, 2**63, -(2**63) - 1])
def test_metrics_packer_refuses_what_is_no_step(step: object) -> None:
    """A step is an i64."""
    with pytest.raises(struct.error):
        metrics_packer(1)(METRICS_HEAD, TIME, STEP_TAG, step, values_tag(0, 1), 1.0)


class _Scalar:
    """As numpy's and torch's: no float, but it can become one."""

    def __float__(self) -> float:
        return 2.5


def test_metrics_packer_takes_whatever_float_takes() -> None:
    """Ints, booleans and scalars of other libraries are numbers."""
    payload = metrics_packer(3)(METRICS_HEAD, TIME, STEP_TAG, 0, values_tag(0, 3), 7, True, _Scalar())
    assert struct.unpack(">3d", unpack(payload)[4]) == (7.0, 1.0, 2.5)


def test_a_record_that_is_too_large_is_refused() -> None:
    """The limit counts the whole payload."""
    overhead = len(pack(Kind.CONFIG, TIME, {"a": bytes(70_000)})) - 70_000
    assert len(pack(Kind.CONFIG, TIME, {"a": bytes(MAX_PAYLOAD_BYTES - overhead)})) == MAX_PAYLOAD_BYTES
    with pytest.raises(ProtocolError, match="at most"):
        pack(Kind.CONFIG, TIME, {"a": bytes(MAX_PAYLOAD_BYTES - overhead + 1)})


def test_text_that_is_no_unicode_is_packed() -> None:
    """A lone surrogate, as in an undecodable file name, becomes a question mark."""
    assert unpack(pack(Kind.CONFIG, TIME, {"path": "a\udcffb"}))[2] == {"path": "a?b"}


@pytest.mark.parametrize(
    "value",
    [
        None, 7, "text", b"", {}, [], [1], [None, TIME], ["1", TIME], [True, TIME], [1.0, TIME],
        [1, None], [1, -1], [1, 2**63], [1, 1.5], [1, True],
    ],
)  # fmt: skip
def test_what_is_no_event_is_refused(value: object) -> None:
    """An event is an array that begins with a kind and a time."""
    with pytest.raises(ProtocolError):
        unpack(_packed(value))


def test_a_kind_of_a_newer_sender_is_an_event() -> None:
    """It is for the reader to store what it does not know."""
    assert unpack(_packed([4711, TIME, "what", "ever"])) == [4711, TIME, "what", "ever"]


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_a_protocol_error(payload: bytes) -> None:
    """Nothing else comes out of it."""
    try:
        event = unpack(payload)
    except ProtocolError:
        return
    assert type(event[0]) is int
    assert type(event[1]) is int


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa1a", b"\x81\x01", b"\xdd\x00\x00\x00\x01"])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 600, 1000, 100_000])
def test_what_is_nested_too_deeply_is_refused(opener: bytes, depth: int) -> None:
    """At every depth that msgpack itself would take, or not."""
    payload = b"\x93\x05\x00" + opener * depth + b"\xc0"
    with pytest.raises(ProtocolError, match="cannot be read"):
        unpack(payload)


def test_what_is_nested_as_deeply_as_allowed_is_taken() -> None:
    """The event itself is the first level."""
    value: Any = []
    for _ in range(MAX_DEPTH - 2):
        value = [value]
    assert unpack(_packed([5, TIME, value]))[2] == value


@pytest.mark.parametrize("tag", [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])
def test_declared_lengths_take_no_memory(tag: bytes) -> None:
    """A size that is only said (of an array, map, bin, str, ext, one in the other) is not allocated."""
    for declared in (2**32 - 1, MAX_PAYLOAD_BYTES - 5000):
        payload = (tag + declared.to_bytes(4, "big")) * 500
        payload += bytes(MAX_PAYLOAD_BYTES - len(payload))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(ProtocolError):
            unpack(payload)
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown_mib < 200


def test_an_identity_with_all_that_it_must_have_is_taken() -> None:
    """What it holds beyond that is kept."""
    assert check_identity({**IDENTITY, "newer": [1]})["newer"] == [1]


@pytest.mark.parametrize("key", IDENTITY)
def test_an_identity_needs_every_required_key(key: str) -> None:
    """The error names the key."""
    with pytest.raises(ProtocolError, match=f"'{key}'"):
        check_identity({name: value for name, value in IDENTITY.items() if name != key})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", 1), ("run", ""), ("run", "-a"), ("run", ".a"), ("run", "a/b"), ("run", "../a"), ("run", "a b"),
        ("run", "ä"), ("run", "a" * 129), ("run", "a\n"), ("run", b"run"), ("run", None),
        ("project", None), ("project", 1), ("launch", 1), ("host", b"h"),
        ("rank", -1), ("rank", 8), ("rank", True), ("rank", 1.0), ("rank", "1"),
        ("world_size", 0), ("world_size", 3), ("world_size", 2**17 + 1), ("world_size", True),
        ("pid", "1"), ("pid", None),
    ],
)  # fmt: skip
def test_an_identity_that_cannot_be_is_refused(key: str, value: object) -> None:
    """One wrong entry is enough; the error is one line."""
    with pytest.raises(ProtocolError) as caught:
        check_identity({**IDENTITY, key: value})
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("run", ["a", "0", "A.b_c-9", "a" * 128])
def test_a_run_id_of_the_allowed_characters_is_taken(run: str) -> None:
    """From one character to 128."""
    assert check_identity({**IDENTITY, "run": run})["run"] == run


@pytest.mark.parametrize("identity", [None, [], "run", 1, [["run", "a"]]])
def test_an_identity_is_a_map(identity: object) -> None:
    """Nothing else will do."""
    with pytest.raises(ProtocolError, match="must be a map"):
        check_identity(identity)


@pytest.mark.parametrize("size", [10, 100_000])
def test_an_error_is_short_however_large_the_value(size: int) -> None:
    """It goes into logs, and back to the peer."""
    with pytest.raises(ProtocolError) as caught:
        check_identity({**IDENTITY, "run": "x/" * size})
    assert len(str(caught.value)) < 300


def test_an_event_is_read_from_a_view() -> None:
    """Records are not copied before they are understood."""
    assert unpack(memoryview(pack(Kind.SUMMARY, TIME, {"a": 1}))) == [6, TIME, {"a": 1}]
    assert events.Kind(6) is Kind.SUMMARY
