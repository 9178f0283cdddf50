"""Curves are what a reader of every point would draw: bucket by bucket, rank by rank, attempt by attempt."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allranks_collector.queries import curves as module
from allranks_collector.queries.curves import CurveRequest, metrics, plain
from allranks_collector.queries.grid import bucket_count, fitting_shift
from allranks_collector.queries.select import BadQuery, TooMuch, find_run
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.store import Store

NAN, INF = math.nan, math.inf


def ask(cursor: duckdb.DuckDBPyConnection, *keys: str, **arguments: Any) -> list[dict[str, Any]]:
    request = CurveRequest(keys or None, **arguments)
    series: list[dict[str, Any]] = plain(metrics(cursor, find_run(cursor, "run-1"), request))["series"]
    return series


# -- the grid ---------------------------------------------------------------------------------------------


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(2, 5000))
def test_the_shift_is_the_smallest_that_fits(one: int, other: int, buckets: int) -> None:
    low, high = min(one, other), max(one, other)
    shift = fitting_shift(low, high, buckets)
    assert shift == 62 or bucket_count(low, high, shift) <= buckets
    assert shift == 0 or bucket_count(low, high, shift - 1) > buckets


@given(st.integers(0, 10**7), st.integers(0, 10**6))
def test_the_grid_only_ever_coarsens_while_a_run_grows(last: int, more: int) -> None:
    """And by whole buckets: a bucket of the old grid lies within one of the new."""
    assert fitting_shift(0, last + more, 1000) >= fitting_shift(0, last, 1000)


# -- one rank ---------------------------------------------------------------------------------------------


def test_few_points_come_as_they_are(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [3.0, 2.0, 1.5], steps=[10, 20, 30])
    assert ask(cursor, "loss") == [
        {
            "key": "loss",
            "attempt": 1,
            "rank": 0,
            "x": [10, 20, 30],
            "step": [10, 20, 30],
            "time": [T0_NS / 1e9 + s for s in range(3)],
            "value": [3.0, 2.0, 1.5],
            "min": [3.0, 2.0, 1.5],
            "max": [3.0, 2.0, 1.5],
            "count": [1, 1, 1],
            "nonfinite": [0, 0, 0],
        }
    ]


def test_values_that_are_not_finite_are_counted_and_poison_nothing(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [1.0, NAN, 3.0, INF, -INF, NAN, 5.0, 7.0])
    (curve,) = ask(cursor, "loss", buckets=2)
    assert curve["x"] == [0, 4]
    assert (curve["value"], curve["min"], curve["max"]) == ([2.0, 6.0], [1.0, 5.0], [3.0, 7.0])
    assert (curve["count"], curve["nonfinite"]) == ([2, 2], [2, 2])


def test_a_bucket_without_a_finite_value_is_none(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [1.0, NAN])
    (curve,) = ask(cursor, "loss")
    assert (curve["value"], curve["min"], curve["max"]) == ([1.0, None], [1.0, None], [1.0, None])
    (curve,) = ask(cursor, "loss", reduce="ranks")
    assert (curve["mean"], curve["min_rank"], curve["max_rank"]) == ([1.0, None], [0, None], [0, None])


def test_the_writers_of_one_rank_are_one_curve(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    """A forked child logs under a writer of its own, and for its rank."""
    run = build.run()
    build.points(build.writer(run), "loss", [1.0, 2.0])
    build.points(build.writer(run, role="child"), "loss", [3.0, 4.0], steps=[1, 2])
    (curve,) = ask(cursor, "loss")
    assert (curve["step"], curve["value"], curve["count"]) == ([0, 1, 2], [1.0, 2.5, 4.0], [1, 2, 1])


def test_a_long_curve_keeps_to_its_buckets_and_its_extremes(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    writer = build.writer(build.run())
    values = [math.sin(step / 50) for step in range(5000)]
    values[1234] = 99.0
    build.points(writer, "loss", values)
    (curve,) = ask(cursor, "loss", buckets=100)
    assert 50 < len(curve["x"]) <= 100
    assert max(curve["max"]) == 99.0
    assert sum(curve["count"]) == 5000


def test_full_buckets_stay_while_the_run_grows(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [float(step) for step in range(1000)])
    (before,) = ask(cursor, "loss", buckets=100)
    build.points(writer, "loss", [0.0] * 300, steps=range(1000, 1300))
    (after,) = ask(cursor, "loss", buckets=100)
    full = before["count"].index(before["count"][-1]) if before["count"][-1] < 16 else len(before["count"])
    for name in ("x", "value", "min", "max"):
        assert after[name][:full] == before[name][:full]


@pytest.mark.parametrize("first", [1_000_000, -1_000_000, 2**62])
def test_a_run_that_starts_far_from_zero_uses_its_buckets(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, first: int
) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [1.0] * 640, steps=range(first, first + 640))
    (curve,) = ask(cursor, "loss", buckets=100)
    assert 50 < len(curve["x"]) <= 100
    assert curve["x"][0] == first


def test_only_the_steps_asked_for(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [float(step) for step in range(10_000)])
    (curve,) = ask(cursor, "loss", step_min=5000, step_max=5009, buckets=10)
    assert curve["x"] == list(range(5000, 5010))


def test_every_point(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    build.points(writer, "loss", [1.0, NAN, 3.0, 4.0], steps=[5, 1, 3, 3])
    assert ask(cursor, "loss", buckets=0) == [
        {
            "key": "loss",
            "attempt": 1,
            "rank": 0,
            "x": [1, 3, 3, 5],
            "step": [1, 3, 3, 5],
            "time": [T0_NS / 1e9 + s for s in (1, 2, 3, 0)],
            "value": [None, 3.0, 4.0, 1.0],
        }
    ]


def test_every_point_of_too_many_is_refused(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RAW_POINTS", 3)
    writer = build.writer(build.run())
    build.points(writer, "loss", [1.0] * 4)
    with pytest.raises(TooMuch, match="more than 3 points"):
        ask(cursor, "loss", buckets=0)


# -- many ranks, keys, attempts ---------------------------------------------------------------------------


def test_over_ranks(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run()
    for rank, values in enumerate(([1.0, 9.0], [4.0, 5.0], [NAN, 1.0])):
        build.points(build.writer(run, rank), "loss", values)
    assert ask(cursor, "loss", reduce="ranks") == [
        {
            "key": "loss",
            "attempt": 1,
            "x": [0, 1],
            "step": [0, 1],
            "mean": [2.5, 5.0],
            "min": [1.0, 1.0],
            "max": [4.0, 9.0],
            "min_rank": [0, 2],
            "max_rank": [1, 0],
            "count": [2, 3],
            "nonfinite": [1, 0],
        }
    ]


def test_curves_come_in_the_order_of_keys_and_ranks(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run()
    for rank in (2, 0, 1):
        writer = build.writer(run, rank)
        build.points(writer, "a", [1.0])
        build.points(writer, "b", [2.0])
    curves = ask(cursor, "b", "a", "not there", ranks={0, 2})
    assert [(c["key"], c["rank"], c["value"]) for c in curves] == [
        ("b", 0, [2.0]), ("b", 2, [2.0]), ("a", 0, [1.0]), ("a", 2, [1.0]),
    ]  # fmt: skip


def test_the_newest_attempt_that_has_the_key_is_the_default(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run(attempts=2)
    first, second = build.writer(run), build.writer(run, attempt=2)
    build.points(first, "loss", [1.0])
    build.points(first, "only/first", [2.0])
    build.points(second, "loss", [3.0])
    values = {(c["key"], c["attempt"]): c["value"] for c in ask(cursor)}
    assert values == {("loss", 2): [3.0], ("only/first", 1): [2.0]}
    assert [c["value"] for c in ask(cursor, "loss", attempt=1)] == [[1.0]]
    assert [c["value"] for c in ask(cursor, "loss", attempt="all", reduce="none")] == [[1.0], [3.0]]
    assert [c["mean"] for c in ask(cursor, "loss", attempt="all", reduce="ranks")] == [[1.0], [3.0]]
    assert ask(cursor, "loss", attempt=7) == []


def rewound(build: DatabaseBuilder) -> None:
    """Three attempts, each with its number as value: 0 … 9, then from 4 on, then from 6 on; and a sparse key."""
    run = build.run(attempts=3)
    for attempt, first, last in ((1, 0, 9), (2, 4, 7), (3, 6, 8)):
        for rank in (0, 1):
            writer = build.writer(run, rank, attempt=attempt, opened_s=100.0 * attempt)
            steps = range(first, last + 1)
            at = [100.0 * attempt + step - first for step in steps]
            build.points(writer, "loss", [float(attempt)] * len(steps), steps=steps, seconds=at)
            if attempt < 3:
                build.points(writer, "val", [float(attempt)] * 2, steps=[first + 1, first + 5], seconds=at[1:3])


@pytest.mark.parametrize("reduce", ["none", "ranks"])
def test_a_run_that_went_back_is_one_curve_of_what_counts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, reduce: str
) -> None:
    rewound(build)
    loss, *others, val = ask(cursor, "loss", "val", reduce=reduce)
    assert len(others) == (2 if reduce == "none" else 0)
    value = "value" if reduce == "none" else "mean"
    assert (loss["attempt"], loss["step"]) == (3, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert loss[value] == [1, 1, 1, 1, 2, 2, 3, 3, 3]
    assert (val["attempt"], val["step"], val[value]) == (2, [1, 5, 9], [1, 2, 2])
    # What was given up is still there.
    (given_up,) = ask(cursor, "loss", attempt=1, reduce="ranks")
    assert (given_up["step"][-1], given_up["mean"]) == (9, [1] * 10)
    assert [len(curve["step"]) for curve in ask(cursor, "loss", attempt="all", reduce="ranks")] == [10, 4, 3]


def test_every_point_that_counts_comes_with_the_attempt_that_logged_it(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    rewound(build)
    curves = ask(cursor, "loss", buckets=0, ranks={1})
    assert [(c["attempt"], c["step"]) for c in curves] == [(1, [0, 1, 2, 3]), (2, [4, 5]), (3, [6, 7, 8])]


def test_by_time_too_what_was_given_up_is_left_out(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    rewound(build)
    (curve,) = ask(cursor, "loss", x="time", ranks={0})
    assert curve["x"] == [100, 101, 102, 103, 200, 201, 300, 301, 302]
    assert curve["value"] == [1, 1, 1, 1, 2, 2, 3, 3, 3]


def test_a_rank_that_a_smaller_world_left_out_ends_where_the_others_went_on(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run(attempts=2)
    for rank in (0, 1):
        build.points(build.writer(run, rank, world_size=2), "loss", [1.0] * 10)
    build.points(build.writer(run, 0, attempt=2), "loss", [2.0] * 3, steps=[4, 5, 6])
    (curve,) = ask(cursor, "loss", ranks={1})
    assert curve["step"] == [0, 1, 2, 3]


def test_figures_of_processes_are_the_newest_attempts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run(attempts=2)
    for attempt in (1, 2):
        build.points(build.writer(run, attempt=attempt), "gpu", [float(attempt)], kind="system")
    assert [curve["value"] for curve in ask(cursor, "gpu", kind="system", x="time")] == [[2.0]]


def test_other_runs_stay_out(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    build.points(build.writer(build.run("run-1")), "loss", [1.0])
    build.points(build.writer(build.run("run-2")), "loss", [2.0])
    assert [curve["value"] for curve in ask(cursor, "loss")] == [[1.0]]


# -- other x ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buckets", [0, 100])
def test_by_time(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, buckets: int) -> None:
    writer = build.writer(build.run(created_s=-10))
    build.points(writer, "loss", [1.0, 2.0], seconds=[5.0, 2.5])
    (curve,) = ask(cursor, "loss", x="time", buckets=buckets)
    assert (curve["x"], curve["step"], curve["value"]) == ([12.5, 15.0], [1, 0], [2.0, 1.0])
    assert curve["time"] == [T0_NS / 1e9 + 2.5, T0_NS / 1e9 + 5.0]
    (curve,) = ask(cursor, "loss", x="time", buckets=buckets, reduce="ranks")
    assert (curve["x"], curve["mean"]) == ([12.5, 15.0], [2.0, 1.0])


def test_system_figures_go_by_time(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    build.points(writer, "gpu/0/util", [50.0, 60.0], steps=[7, 7], kind="system")
    build.points(writer, "loss", [1.0])
    (curve,) = ask(cursor, kind="system", x="time")
    assert (curve["key"], curve["x"], curve["value"]) == ("gpu/0/util", [0.0, 1.0], [50.0, 60.0])


@pytest.mark.parametrize("buckets", [0, 100])
def test_by_another_metric_of_the_same_rank_and_step(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, buckets: int
) -> None:
    run = build.run()
    for rank in (0, 1):
        writer = build.writer(run, rank)
        build.points(writer, "loss", [3.0 + rank, 2.0, 1.0, 0.5])
        build.points(writer, "epoch", [0.0, 0.5 + rank, NAN], steps=[0, 2, 3])
    curves = ask(cursor, "loss", x="epoch", buckets=buckets)
    assert [(c["rank"], c["x"], c["step"], c["value"]) for c in curves] == [
        (0, [0.0, 0.5], [0, 2], [3.0, 1.0]),
        (1, [0.0, 1.5], [0, 2], [4.0, 1.0]),
    ]
    (curve,) = ask(cursor, "loss", x="epoch", buckets=buckets, reduce="ranks")
    assert (curve["x"], curve["mean"]) == ([0.0, 0.5, 1.5], [3.5, 1.0, 1.0])


def test_by_a_metric_that_is_not_there(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    build.points(build.writer(build.run()), "loss", [1.0])
    assert ask(cursor, "loss", x="nothing") == []


# -- what cannot be asked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"buckets": -1}, {"buckets": 10**9}, {"reduce": "sum"}, {"x": ""}])
def test_arguments_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadQuery, match="expected"):
        CurveRequest(["loss"], **wrong)


# -- against a model --------------------------------------------------------------------------------------

VALUES = st.one_of(st.floats(-1e6, 1e6, allow_nan=False), st.sampled_from([NAN, INF, -INF]))
POINTS = st.lists(st.tuples(st.integers(0, 3), st.integers(-40, 400), VALUES), min_size=1, max_size=60)


def model(points: list[tuple[int, int, float]], shift: int, *, merged: bool) -> dict[int | None, list[list[Any]]]:
    """The buckets as plain Python makes them: curve → [first step, mean, min, max, count, nonfinite] by bucket."""
    buckets: dict[tuple[int | None, int], list[tuple[int, float]]] = defaultdict(list)
    for rank, step, value in points:
        buckets[None if merged else rank, step >> shift].append((step, value))
    curves: dict[int | None, list[list[Any]]] = defaultdict(list)
    for (curve, _), rows in sorted(buckets.items(), key=lambda item: (item[0][0] or 0, item[0][1])):
        finite = [value for _, value in rows if math.isfinite(value)]
        figures = [math.fsum(finite) / len(finite), min(finite), max(finite)] if finite else [None] * 3
        curves[curve].append([min(step for step, _ in rows), *figures, len(finite), len(rows) - len(finite)])
    return curves


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=POINTS, buckets=st.integers(2, 50), merged=st.booleans())
def test_aggregation_equals_the_model(
    store: Store, points: list[tuple[int, int, float]], buckets: int, merged: bool
) -> None:
    with store.transaction() as connection:
        for table in ("runs", "attempts", "writers", "positions", "states", "series", "points"):
            connection.execute(f"DELETE FROM {table}")
    build = DatabaseBuilder(store)
    run = build.run()
    for rank in sorted({rank for rank, _, _ in points}):
        mine = [(step, value) for r, step, value in points if r == rank]
        build.points(build.writer(run, rank), "loss", [v for _, v in mine], steps=[s for s, _ in mine])
    with store.cursor() as cursor:
        curves = ask(cursor, "loss", buckets=buckets, reduce="ranks" if merged else "none")
    widest = max(len(curve["x"]) for curve in curves)
    assert widest <= buckets
    steps = [step for _, step, _ in points]
    guessed = fitting_shift(0, max(0, *steps), buckets)
    used = bucket_count(min(steps), max(steps), guessed)
    exact = fitting_shift(min(steps), max(steps), buckets)
    shift = exact if used > buckets or (guessed and used * 2 <= buckets) else guessed
    expected = model(points, shift, merged=merged)
    assert {curve.get("rank") for curve in curves} == set(expected)
    for curve in curves:
        mean = curve["mean"] if merged else curve["value"]
        got = list(
            zip(curve["step"], mean, curve["min"], curve["max"], curve["count"], curve["nonfinite"], strict=True)
        )
        want = expected[curve.get("rank")]
        assert [(r[0], *r[2:]) for r in got] == [(r[0], *r[2:]) for r in want]
        assert [r[1] for r in got] == [pytest.approx(r[1], abs=1e-6) for r in want]
