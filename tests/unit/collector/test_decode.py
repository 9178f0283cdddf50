"""Decoding: both ways from bytes to points say the same, whatever lies between the records."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.writers import T0_NS, HandWriter, number

from allranks_bus import events, records
from allranks_bus.events import Kind
from allranks_collector import decode
from allranks_collector.books import WriterBook
from allranks_collector.decode import Decoder, opening_of
from allranks_collector.ledger import Ledger
from allranks_collector.store import Store

# Keyset 0 has one name, keyset 1 two, and so on.
_KEYSETS = 3


@dataclass
class Desk:
    """A decoder with one writer, which has defined its keysets."""

    decoder: Decoder
    book: WriterBook
    ledger: Ledger

    def take(self, payloads: list[bytes], skip: int = 0, body: bytes | None = None) -> int:
        framed = b"".join(map(records.frame, payloads)) if body is None else body
        return self.decoder.batch(self.book, framed, len(payloads), skip)

    def outcome(self) -> dict[str, Any]:
        points = self.decoder.points
        columns = points.columns() if points.points else {}
        return {
            "columns": {name: column.tobytes() for name, column in columns.items()},
            "counts": (points.points, points.events),
            "book": (self.book.last_step, self.book.last_ns, self.book.dropped, self.book.is_closed),
            "objects": self.ledger.new.objects,
            "config": self.ledger.new.config,
            "events": self.ledger.new.events,
        }


def _desk(store: Store) -> Desk:
    ledger = Ledger(store)
    book = ledger.open(b"w" * 16, HandWriter().identity, T0_NS)
    desk = Desk(Decoder(ledger), book, ledger)
    names = [f"key-{n}" for n in range(_KEYSETS)]
    desk.take([events.pack(Kind.KEYSET, T0_NS, n, names[: n + 1]) for n in range(_KEYSETS)])
    return desk


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store that nothing is written to: the ledger alone remembers."""
    path: Path = tmp_path_factory.mktemp("decode")
    with Store.open(path / "empty.duckdb") as store:
        yield store


@st.composite
def _runs_of_records(draw: st.DrawFn) -> list[bytes]:
    """Records as a training makes them: many alike in a row, and others in between."""
    floats = st.floats(width=64)
    times, steps = st.integers(0, 2**63 - 1), st.integers(-(2**63), 2**63 - 1)
    payloads: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        keyset = draw(st.integers(0, _KEYSETS))  # the last of them is unknown
        for _ in range(draw(st.integers(0, 40))):
            values = draw(st.lists(floats, min_size=keyset + 1, max_size=keyset + 1))
            payloads.append(events.pack_metrics(draw(times), draw(steps), keyset, values))
        payloads.append(
            draw(
                st.sampled_from(
                    [
                        number(3),
                        events.pack(Kind.CONFIG, T0_NS, {"a": 1}),
                        # METRICS as another sender's msgpack would write it.
                        cast("bytes", msgpack.packb((1, 7, 8, 0, struct.pack(">d", 2.5)))),
                        events.pack(Kind.LOG, T0_NS, 1, {"x": 1.5, "text": "t"}),
                        events.pack(Kind.DROPPED, T0_NS, {"records": 2, "reason": "r"}),
                        events.pack(Kind.METRICS, T0_NS, 0, 1, b"too short"),
                    ]
                )
            )
        )
    return payloads


@given(payloads=_runs_of_records(), skip=st.integers(0, 60), flip=st.none() | st.integers(0, 10**6))
@settings(max_examples=150)
def test_blocks_and_single_records_give_the_same(
    empty: Store, payloads: list[bytes], skip: int, flip: int | None
) -> None:
    body = bytearray(b"".join(map(records.frame, payloads)))
    if flip is not None:
        body[flip % len(body)] ^= 1 << flip % 8
    by_block, one_by_one = _desk(empty), _desk(empty)
    skip = min(skip, len(payloads))
    passed = by_block.take(payloads, skip, bytes(body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_BLOCK_RECORDS", 10**9)
        assert one_by_one.take(payloads, skip, bytes(body)) == passed
    assert by_block.outcome() == one_by_one.outcome()
    assert flip is None or passed < len(payloads) or skip > 0


def test_a_block_gives_each_value_to_its_series_in_order(empty: Store) -> None:
    desk = _desk(empty)
    assert desk.take([events.pack_metrics(T0_NS + step, step, 1, [step, -step]) for step in range(100)]) == 100
    columns = desk.decoder.points.columns()
    assert columns["step"].tolist() == [step for step in range(100) for _ in range(2)]
    assert columns["value"].tolist() == [value for step in range(100) for value in (step, -step)]
    assert columns["series"].tolist() == desk.book.keysets[1].series.tolist() * 100
    assert columns["time_ns"][-1] == T0_NS + 99
    assert (desk.book.last_step, desk.book.last_ns) == (99, T0_NS + 99)


def test_what_comes_late_does_not_set_the_writer_back(empty: Store) -> None:
    desk = _desk(empty)
    second = 1_000_000_000
    desk.take([events.pack_metrics(T0_NS + second, 8, 0, [1.0])])
    desk.take([events.pack(Kind.LOG, T0_NS + late, 7, {"loss": 0.5}) for late in (1, 2)])
    assert (desk.book.last_step, desk.book.last_ns) == (8, T0_NS + second)
    assert desk.decoder.points.columns()["step"].tolist() == [8, 7, 7]
    desk.take([events.pack(Kind.LOG, T0_NS - 3600 * second, 3, {"loss": 0.5})])  # its clock has been set back
    assert (desk.book.last_step, desk.book.last_ns) == (3, T0_NS - 3600 * second)


def test_events_without_values_are_events_all_the_same(empty: Store) -> None:
    desk = _desk(empty)
    payloads = [events.pack(Kind.KEYSET, T0_NS, 9, []), *[events.pack_metrics(T0_NS, 1, 9, [])] * 40]
    assert desk.take(payloads) == 41
    assert (desk.decoder.points.points, desk.decoder.points.events) == (0, 40)


@pytest.mark.parametrize("index", [0, 20, 99])
def test_everything_before_a_broken_record_is_taken_and_nothing_after_it(empty: Store, index: int) -> None:
    desk = _desk(empty)
    frames = [bytearray(records.frame(events.pack_metrics(T0_NS, step, 0, [step]))) for step in range(100)]
    frames[index][-1] ^= 1
    assert desk.decoder.batch(desk.book, b"".join(frames), 100, 0) == index
    assert desk.decoder.points.events == index


def _nested(levels: int) -> bytes:
    return b"\x81\xa1a" * levels + b"\x01"


@pytest.mark.parametrize("levels", [30, 500, 1000, 5000])
@pytest.mark.parametrize(
    "head",
    [b"\x94\x03\x01\x01\x82\xa1x\x01\xa1y", b"\x93\x05\x01", b"\x93\x08\x01", b"\x93\x63\x01"],
    ids=["LOG", "CONFIG", "CLOSE", "unknown"],
)
def test_a_record_that_is_nested_too_deep_is_broken_and_half_of_it_is_not_taken(
    empty: Store, head: bytes, levels: int
) -> None:
    desk = _desk(empty)
    before = desk.outcome()
    passed = desk.take([head + _nested(levels)])
    after = desk.outcome()
    assert passed == (1 if levels == 30 else 0)
    # `last_ns` may have moved; nothing that is stored has.
    assert passed or {**after, "book": None} == {**before, "book": None}
    assert passed or not desk.decoder.closed


@pytest.mark.parametrize("payload", [b"\xc1", number(1), b"\x92\x00\x01"])
def test_only_an_open_record_opens(payload: bytes) -> None:
    assert opening_of(records.frame(payload)) is None


def test_an_open_record_is_found_at_the_start() -> None:
    writer = HandWriter()
    opening = opening_of(records.frame(writer.open()) + b"and so on")
    assert opening is not None
    assert opening[2] == writer.identity


def test_values_come_through_bit_by_bit(empty: Store) -> None:
    desk = _desk(empty)
    values = [float("nan"), float("inf"), -0.0, 5e-324, 1.7976931348623157e308]
    desk.take([events.pack_metrics(T0_NS, step, 0, [value]) for step, value in enumerate(values * 10)])
    assert desk.decoder.points.columns()["value"].tobytes() == np.array(values * 10).tobytes()


def test_surroundings_are_kept_as_json_and_only_a_map_of_64_kib_is_taken(empty: Store) -> None:
    desk = _desk(empty)
    assert desk.take([events.pack(Kind.SURROUNDINGS, T0_NS, {"env": {"A": b"\x01"}})]) == 1
    assert desk.take([events.pack(Kind.SURROUNDINGS, T0_NS, {"env": {"A": "x" * 65_536}})]) == 0
    assert desk.take([events.pack(Kind.SURROUNDINGS, T0_NS, ["no map"])]) == 0
    ((_, time_ns, body),) = desk.ledger.new.surroundings
    assert (time_ns, json.loads(body)) == (T0_NS, {"env": {"A": "01"}})


def test_an_error_file_is_an_event_of_what_it_tells_and_one_that_tells_nothing_is_none(empty: Store) -> None:
    desk = _desk(empty)
    assert desk.take([events.pack(Kind.ERROR_FILE, T0_NS, b'{"message": "ValueError: no"}')]) == 1
    assert desk.take([events.pack(Kind.ERROR_FILE, T0_NS, b"\xff")]) == 1
    assert desk.take([events.pack(Kind.ERROR_FILE, T0_NS, "text")]) == 0
    assert desk.take([events.pack(Kind.ERROR_FILE, T0_NS, bytes(70_000))]) == 0
    ((*_, kind, body),) = [row for row in desk.ledger.new.events if row[-2] == "error_file"]
    assert (kind, json.loads(body)) == ("error_file", {"type": "ValueError", "message": "no", "traceback": ""})


_WINDOW = {"from": 4, "to": 8, "seconds": 1.0, "sections": {"data": [5, 0.25, 0.125], "sync": [5, 0.5, 0.25]}}


def test_what_the_time_went_to_is_a_row_for_each_section(empty: Store) -> None:
    desk = _desk(empty)
    assert desk.take([events.pack(Kind.SECTIONS, T0_NS, _WINDOW)]) == 1
    assert desk.ledger.new.sections == [
        (desk.book.writer, T0_NS, 4, 8, 1.0, "data", 5, 0.25, 0.125),
        (desk.book.writer, T0_NS, 4, 8, 1.0, "sync", 5, 0.5, 0.25),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "a"},
        {"to": None},
        {"seconds": math.nan},
        {"seconds": -1.0},
        {"sections": ["data"]},
        {"sections": {"data": [5, 0.25]}},
        {"sections": {"data": [5.5, 0.25, 0.1]}},
        {"sections": {"data": [5, math.inf, 0.1]}},
        {"sections": {"": [5, 0.25, 0.1]}},
        {"sections": {f"part-{n}": [1, 0.1, 0.1] for n in range(65)}},
    ],
)
def test_of_sections_that_make_no_sense_nothing_is_taken(empty: Store, wrong: dict[str, Any]) -> None:
    desk = _desk(empty)
    assert desk.take([events.pack(Kind.SECTIONS, T0_NS, {**_WINDOW, **wrong})]) == 0
    assert desk.ledger.new.sections == []


def test_an_alert_is_an_event_and_what_is_too_long_or_unknown_in_it_is_cut(empty: Store) -> None:
    desk = _desk(empty)
    told = {"title": "NaN", "text": "x" * 20_000, "level": "ERROR", "more": 1}
    desk.take([events.pack(Kind.ALERT, T0_NS, told)])
    ((_, _, _, time_ns, kind, body),) = desk.ledger.new.events
    assert (time_ns, kind) == (T0_NS, "alert")
    assert json.loads(body) == {"title": "NaN", "text": "x" * 16_384, "level": "ERROR"}
