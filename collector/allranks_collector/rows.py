"""Rows on their way into the database: points as columns of numbers, everything else as tuples by table."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Series = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

Row = tuple[Any, ...]

# The columns' types, in the tables' own order (schema.py); `unnest` of a typed list is the fast way in for rows.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": ("INTEGER", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT"),
    "attempts": ("INTEGER", "INTEGER", "VARCHAR", "BIGINT"),
    "writers": (
        *("INTEGER", "VARCHAR", "INTEGER", "INTEGER", "INTEGER", "INTEGER", "INTEGER"),
        *("VARCHAR", "VARCHAR", "BIGINT", "VARCHAR", "BIGINT"),
    ),
    "positions": ("INTEGER", "BIGINT", "BIGINT", "BIGINT", "BIGINT"),
    "states": ("INTEGER", "BIGINT", "VARCHAR", "VARCHAR"),
    "keysets": ("INTEGER", "BIGINT", "VARCHAR"),
    "series": ("INTEGER", "INTEGER", "VARCHAR", "VARCHAR"),
    "objects": ("INTEGER", "BIGINT", "BIGINT", "VARCHAR"),
    "config": ("INTEGER", "INTEGER", "BIGINT", "VARCHAR", "VARCHAR"),
    "summary": ("INTEGER", "INTEGER", "BIGINT", "VARCHAR", "VARCHAR"),
    "definitions": ("INTEGER", "BIGINT", "VARCHAR", "VARCHAR", "VARCHAR"),
    "events": ("BIGINT", "INTEGER", "INTEGER", "BIGINT", "VARCHAR", "VARCHAR"),
    "terminals": ("INTEGER", "UTINYINT", "BLOB"),
    "sections": (
        *("INTEGER", "BIGINT", "BIGINT", "BIGINT", "DOUBLE"),
        *("VARCHAR", "BIGINT", "DOUBLE", "DOUBLE"),
    ),
    "clocks": ("INTEGER", "BIGINT"),
    "surroundings": ("INTEGER", "BIGINT", "VARCHAR"),
    "stacks": ("INTEGER", "INTEGER", "INTEGER", "VARCHAR", "BIGINT", "VARCHAR", "VARCHAR"),
}


def _rows() -> list[Row]:
    return []


@dataclass
class NewRows:
    """Rows of all tables but points, lines and open lines; the fields are the tables' names."""

    runs: list[Row] = field(default_factory=_rows)
    attempts: list[Row] = field(default_factory=_rows)
    writers: list[Row] = field(default_factory=_rows)
    positions: list[Row] = field(default_factory=_rows)
    states: list[Row] = field(default_factory=_rows)
    keysets: list[Row] = field(default_factory=_rows)
    series: list[Row] = field(default_factory=_rows)
    objects: list[Row] = field(default_factory=_rows)
    config: list[Row] = field(default_factory=_rows)
    summary: list[Row] = field(default_factory=_rows)
    definitions: list[Row] = field(default_factory=_rows)
    events: list[Row] = field(default_factory=_rows)
    terminals: list[Row] = field(default_factory=_rows)
    sections: list[Row] = field(default_factory=_rows)
    clocks: list[Row] = field(default_factory=_rows)
    surroundings: list[Row] = field(default_factory=_rows)
    stacks: list[Row] = field(default_factory=_rows)

    def write(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Inserts all rows; in the caller's transaction."""
        for table in fields(self):
            rows: list[Row] = getattr(self, table.name)
            if rows:
                values = ", ".join(f"unnest(?::{kind}[])" for kind in _COLUMNS[table.name])
                connection.execute(
                    f"INSERT INTO {table.name} SELECT {values}", [list(column) for column in zip(*rows, strict=True)]
                )

    def clear(self) -> None:
        """Forgets all rows: they are stored."""
        for table in fields(self):
            getattr(self, table.name).clear()


@contextlib.contextmanager
def columns_as(
    connection: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, npt.NDArray[Any]]
) -> Generator[None]:
    """Lets statements read arrays of one length as the table `name`, without a copy."""
    connection.register(name, dict(columns))
    try:
        yield
    finally:
        # In a transaction that has failed even this fails, and must not hide why.
        with contextlib.suppress(duckdb.Error):
            connection.unregister(name)


class PointBuffer:
    """Points on their way into the database, in the order of their arrival.

    Few at a time come one by one (`add`), many of the same keyset as arrays (`add_block`).
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[Series, Ints, Ints, Floats]] = []
        self._clear_singles()
        self.points = 0
        self.events = 0

    def add(self, series: bytes, step: int, time_ns: int, values: bytes) -> None:
        """One event: `series` are int32 in native order, `values` as many doubles, big-endian."""
        self._series.append(series)
        self._steps.append(step)
        self._times.append(time_ns)
        self._values.append(values)
        self._counts.append(len(values) >> 3)
        self.points += len(values) >> 3
        self.events += 1

    def add_block(self, series: Series, steps: Ints, times: Ints, values: Floats) -> None:
        """Events of one keyset: `values` has a row for each of `steps` and `times`, a column for each of `series`."""
        self._settle_singles()
        count, width = values.shape
        self._blocks.append(
            (np.tile(series, count), np.repeat(steps, width), np.repeat(times, width), values.reshape(-1))
        )
        self.points += values.size
        self.events += count

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of table `points`."""
        self._settle_singles()
        if len(self._blocks) == 1:
            series, steps, times, values = self._blocks[0]
        else:
            series, steps, times, values = (np.concatenate(column) for column in zip(*self._blocks, strict=True))
        return {"series": series, "step": steps, "time_ns": times, "value": values}

    def _settle_singles(self) -> None:
        if not self._steps:
            return
        counts = np.array(self._counts)
        self._blocks.append(
            (
                np.frombuffer(b"".join(self._series), np.int32),
                np.repeat(np.array(self._steps, np.int64), counts),
                np.repeat(np.array(self._times, np.int64), counts),
                np.frombuffer(b"".join(self._values), ">f8").astype(np.float64),
            )
        )
        self._clear_singles()

    def _clear_singles(self) -> None:
        self._series: list[bytes] = []
        self._steps: list[int] = []
        self._times: list[int] = []
        self._values: list[bytes] = []
        self._counts: list[int] = []


def jsonable(value: Any) -> Any:
    """`value` as JSON can say it: bytes in hex, non-finite numbers as text, any key as text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
