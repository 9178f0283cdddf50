"""Rows on their way into the database keep their order and their values."""

from __future__ import annotations

import struct
from dataclasses import fields
from typing import Any

import duckdb
import numpy as np
import pytest

from allranks_collector.rows import NewRows, PointBuffer, columns_as, jsonable
from allranks_collector.store import Store


def _add(buffer: PointBuffer, series: list[int], step: int, *values: float) -> None:
    buffer.add(np.array(series, np.int32).tobytes(), step, 1000 + step, struct.pack(f">{len(values)}d", *values))


def _block(buffer: PointBuffer, series: list[int], steps: list[int], rows: list[list[float]]) -> None:
    at = np.array(steps, np.int64)
    buffer.add_block(np.array(series, np.int32), at, at + 1000, np.array(rows, np.float64))


def test_single_events_and_blocks_come_out_in_the_order_in_which_they_went_in() -> None:
    buffer = PointBuffer()
    _add(buffer, [1, 2], 0, 0.5, 1.5)
    _add(buffer, [1], 1, 2.5)
    _block(buffer, [1, 2], [2, 3], [[1.0, 2.0], [3.0, 4.0]])
    _add(buffer, [2], 4, 9.0)
    columns = {name: column.tolist() for name, column in buffer.columns().items()}
    assert columns == {
        "series": [1, 2, 1, 1, 2, 1, 2, 2],
        "step": [0, 0, 1, 2, 2, 3, 3, 4],
        "time_ns": [1000, 1000, 1001, 1002, 1002, 1003, 1003, 1004],
        "value": [0.5, 1.5, 2.5, 1.0, 2.0, 3.0, 4.0, 9.0],
    }
    assert (buffer.points, buffer.events) == (8, 5)


def test_columns_have_the_types_of_the_table() -> None:
    buffer = PointBuffer()
    _add(buffer, [1], 0, float("nan"))
    kinds = {name: column.dtype.str for name, column in buffer.columns().items()}
    assert kinds == {"series": "<i4", "step": "<i8", "time_ns": "<i8", "value": "<f8"}


_SAMPLES: dict[str, tuple[Any, ...]] = {
    "runs": (1, "id", "p", None, "n", None, "[]", 5),
    "attempts": (1, 1, "l", 5),
    "writers": (1, "ab", 1, 1, 0, None, 1, "rank", "h", 2**62, "{}", 5),
    "positions": (1, 2**62, None, 5, 0),
    "states": (1, 5, "dead", None),
    "keysets": (1, 2**32 - 1, "[]"),
    "series": (1, 1, "k\0é", "metric"),
    "objects": (1, -(2**63), 5, '"x"'),
    "config": (1, 1, 5, "k", "null"),
    "summary": (1, 1, 5, "k", "1"),
    "definitions": (1, 5, "n", None, "min"),
    "events": (2**62, 1, 1, 5, "k", "{}"),
    "terminals": (1, 2, b"\xff\0\n"),
    "clocks": (1, -(2**62)),
    "sections": (1, 5, 0, 9, 1.5, "data", 3, 0.5, 0.25),
    "stacks": (1, 1, 0, "0" * 32, 5, "asked", "{}"),
    "surroundings": (1, 5, "{}"),
}


def test_arrays_are_a_table_for_as_long_as_they_are_asked_about(store: Store) -> None:
    with store.transaction() as connection:
        with columns_as(connection, "arrived", {"n": np.arange(3)}):
            assert connection.execute("SELECT sum(n) FROM arrived").fetchall() == [(3,)]
        with pytest.raises(duckdb.CatalogException):
            connection.execute("FROM arrived")


def test_a_transaction_that_failed_says_why(store: Store) -> None:
    with (
        pytest.raises(duckdb.ConversionException, match="Could not convert"),
        store.transaction() as connection,
        columns_as(connection, "arrived", {"n": np.arange(3)}),
    ):
        connection.execute("SELECT CAST('x' AS INTEGER) FROM arrived")


def test_rows_of_every_table_come_back_as_they_went_in(store: Store) -> None:
    rows = NewRows()
    assert {table.name for table in fields(rows)} == set(_SAMPLES)
    for table, sample in _SAMPLES.items():
        getattr(rows, table).extend([sample, sample])
    with store.transaction() as connection:
        rows.write(connection)
    rows.clear()
    with store.transaction() as connection:
        rows.write(connection)  # nothing is left to write
    with store.cursor() as cursor:
        for table, sample in _SAMPLES.items():
            assert cursor.execute(f"SELECT * FROM {table}").fetchall() == [sample, sample]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\x01\xff", "01ff"),
        (float("nan"), "nan"),
        ([float("-inf"), 1, None, True], ["-inf", 1, None, True]),
        ({1: {b"k": (1, 2)}}, {"1": {"b'k'": [1, 2]}}),
        (1 + 2j, "(1+2j)"),
    ],
)
def test_any_value_can_be_said_in_json(value: Any, text: Any) -> None:
    assert jsonable(value) == text
