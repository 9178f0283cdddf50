"""The figures of a series equal what a reader of all its points would find."""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.stats import COLUMNS, SeriesStats

NAN, INF = math.nan, math.inf
ROWS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**62),
        st.one_of(st.floats(-1e9, 1e9), st.sampled_from([NAN, INF, -INF])),
    ),
    max_size=40,
)
Row = tuple[int, int, int, float]


def update(stats: SeriesStats, rows: list[Row]) -> None:
    series, steps, times, values = zip(*rows, strict=True) if rows else ((), (), (), ())
    stats.update(
        np.array(series, np.int32), np.array(steps, np.int64), np.array(times, np.int64), np.array(values, np.float64)
    )


def as_rows(stats: SeriesStats, series: list[int] | None = None) -> dict[int, dict[str, Any]]:
    columns = stats.columns(series)
    names = list(columns)
    return {
        row[0]: dict(zip(names, row, strict=True))
        for row in zip(*(c.tolist() for c in columns.values()), strict=True)
    }


def model(rows: list[Row]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for series in {row[0] for row in rows}:
        mine = [row for row in rows if row[0] == series]
        finite = [row[3] for row in mine if math.isfinite(row[3])]
        found[series] = {
            "series": series,
            "count": len(mine),
            "last": pytest.approx(mine[-1][3], nan_ok=True),
            "last_step": mine[-1][1],
            "last_ns": mine[-1][2],
            "min": pytest.approx(min(finite, default=NAN), nan_ok=True),
            "max": pytest.approx(max(finite, default=NAN), nan_ok=True),
            "sum": pytest.approx(math.fsum(finite), abs=1e-3),
            "nonfinite": len(mine) - len(finite),
        }
    return found


@given(ROWS, st.lists(st.integers(0, 40), max_size=3))
def test_any_cutting_into_commits_gives_the_model(rows: list[Row], cuts: list[int]) -> None:
    stats = SeriesStats()
    edges = [0, *sorted(cuts), len(rows)]
    for begin, end in itertools.pairwise(edges):
        update(stats, rows[begin:end])
    assert as_rows(stats) == model(rows)


@given(ROWS, ROWS)
def test_a_seeded_one_goes_on_as_if_it_had_seen_all(before: list[Row], after: list[Row]) -> None:
    first, second = SeriesStats(), SeriesStats()
    update(first, before)
    second.seed(first.columns())
    update(second, after)
    assert as_rows(second) == model(before + after)


def test_the_columns_are_those_of_the_table() -> None:
    assert tuple(SeriesStats().columns()) == COLUMNS


def test_only_the_series_asked_for_that_have_points() -> None:
    stats = SeriesStats()
    update(stats, [(1, 0, 0, 1.0), (3, 0, 0, 2.0)])
    assert set(as_rows(stats, [0, 3, 10**6])) == {3}


def test_a_forgotten_series_starts_anew() -> None:
    stats = SeriesStats()
    update(stats, [(1, 5, 5, 1.0), (2, 5, 5, 2.0)])
    stats.forget([1, 10**6])
    assert set(as_rows(stats)) == {2}
    update(stats, [(1, 6, 6, 9.0)])
    assert as_rows(stats, [1])[1]["min"] == 9.0


def test_a_copy_does_not_change_afterwards() -> None:
    stats = SeriesStats()
    update(stats, [(1, 0, 0, 1.0)])
    copy = stats.columns()
    update(stats, [(1, 1, 1, -5.0)])
    assert copy["min"].tolist() == [1.0]


def test_a_reader_never_sees_half_an_update() -> None:
    """Each update adds a point of the same value to every series: in any copy, all columns tell of the same one."""
    stats = SeriesStats()
    numbers = np.arange(2000, dtype=np.int32)
    done = threading.Event()

    def write() -> None:
        for step in range(1, 200):
            at = np.full(2000, step, np.int64)
            stats.update(numbers, at, at, at.astype(np.float64))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        columns = stats.columns()
        assert len({*columns["count"].tolist(), *columns["last_step"].tolist(), *columns["max"].tolist()}) <= 1
    writer.join()
