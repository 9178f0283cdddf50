"""Runs, ranks and keys: the last word counts, the newest attempt counts, and figures come from where they are."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from allranks_bus.limits import MAX_WORLD_SIZE
from allranks_collector import queries
from allranks_collector.queries import RunAmbiguous, RunNotFound, find_run, parse_attempt, parse_ranks
from allranks_collector.queries.definitions import Definition, definition_of, summary_column
from allranks_collector.queries.ranks import MAX_EXPECTED
from allranks_collector.stats import SeriesStats
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.store import Store

NAN = math.nan
T0 = T0_NS / 1e9


def one(cursor: duckdb.DuckDBPyConnection, **arguments: Any) -> dict[str, Any]:
    return queries.get_run(cursor, find_run(cursor, "run-1"), **arguments)


def keys(cursor: duckdb.DuckDBPyConnection, **arguments: Any) -> dict[str, dict[str, Any]]:
    found = queries.list_keys(cursor, find_run(cursor, "run-1"), **arguments)
    return {key["key"]: key for key in found}


# -- which run --------------------------------------------------------------------------------------------


def test_an_id_comes_before_prefixes_and_names(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    numbers = {
        id_: build.run(id_, name=name)
        for id_, name in (("a", None), ("ab", None), ("c", "a"), ("dd", "x"), ("e", "d"))
    }
    assert find_run(cursor, "a").run == numbers["a"]
    assert find_run(cursor, "d").run == numbers["dd"]
    assert find_run(cursor, "x").run == numbers["dd"]


def test_two_runs_with_one_name_are_ambiguous(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    for number in range(7):
        build.run(f"run-{number}", name="same", created_s=number)
    with pytest.raises(RunAmbiguous, match=r"'same' fits 7 runs.*run-6, run-5, run-4, run-3, run-2, …"):
        find_run(cursor, "same")


@pytest.mark.parametrize("reference", ["nothing", "", "%", "un-1"])
def test_a_run_that_is_not_there(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, reference: str) -> None:
    build.run("run-1")
    with pytest.raises(RunNotFound):
        find_run(cursor, reference)


@pytest.mark.parametrize(
    ("text", "ranks"),
    [(None, None), ("", None), ("3", {3}), ("0-3,7", {0, 1, 2, 3, 7}), (" 1 - 2 , 2 ", {1, 2})],
)
def test_ranks_in_words(text: str | None, ranks: set[int] | None) -> None:
    assert parse_ranks(text) == ranks


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "0-99999999", "1;2", "1,,2", "9999999999"])
def test_ranks_that_are_none(text: str) -> None:
    with pytest.raises(queries.BadQuery, match="as in 0-3,7"):
        parse_ranks(text)


def test_attempts_in_words() -> None:
    assert [parse_attempt(text) for text in (None, "newest", "all", "3")] == [None, None, "all", 3]
    with pytest.raises(queries.BadQuery):
        parse_attempt("-1")


# -- runs -------------------------------------------------------------------------------------------------


def test_a_run_that_has_only_been_named(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    build.run(name="n", group="g", tags=["x", "y"])
    run = one(cursor)
    assert (run["name"], run["group"], run["tags"], run["created_at"]) == ("n", "g", ["x", "y"], T0)
    assert (run["attempt"], run["ranks_seen"], run["last_step"], run["summary"]) == (None, 0, None, {})
    assert run["attempts"] == [{"attempt": 1, "started_at": T0, "launch": "launch-1"}]


@pytest.mark.parametrize(
    ("states", "world_size", "expected"),
    [
        (["running", "finished"], 2, "running"),
        (["stalled", "finished"], 2, "stalled"),
        (["running"], 2, "running"),
        (["finished", "finished"], 2, "finished"),
        (["failed", "finished"], 2, "failed"),
        (["dead", "finished"], 2, "dead"),
        (["unreachable", "finished"], 2, "unreachable"),
    ],
)
def test_a_runs_state_comes_from_its_ranks(
    build: DatabaseBuilder,
    cursor: duckdb.DuckDBPyConnection,
    states: list[str],
    world_size: int,
    expected: str,
) -> None:
    run = build.run()
    for rank, state in enumerate(states):
        build.state(build.writer(run, rank, world_size=world_size), state, since_s=50 + rank)
    got = one(cursor)
    assert (got["state"], got["ranks_seen"], got["world_size"]) == (expected, len(states), world_size)
    ended = T0 + 49 + len(states) if expected in ("finished", "failed", "dead") else None
    assert got["ended_at"] == ended
    assert queries.state_of(cursor, find_run(cursor, "run-1")) == expected
    assert queries.list_runs(cursor, state=expected)["total"] == 1
    assert queries.list_runs(cursor, state="expected")["total"] == 0


_LOST_PEER = {"type": "RuntimeError", "message": "[pair.cc:553] Connection closed by peer [10.0.0.1]:17304."}


@pytest.mark.parametrize(
    ("ends", "scheduler", "expected"),
    [
        ([("dead", {"signal": "SIGKILL"}), ("finished", {})], None, "killed"),
        ([("dead", {"signal": "SIGTERM"}), ("dead", {"signal": "SIGTERM"})], None, "killed"),
        ([("dead", {"signal": "SIGTERM"}), ("finished", {"exit_code": 0})], "slurm", "preempted"),
        ([("failed", {"exit_code": 143})], "kubernetes", "preempted"),
        ([("dead", {"signal": "SIGTERM"}), ("dead", {"signal": "SIGKILL"})], "slurm", "killed"),
        ([("dead", {"signal": "SIGTERM"}), ("failed", {"exit_code": 1})], "slurm", "failed"),
        ([("dead", {"exit_code": 3})], None, "failed"),
        ([("failed", {"exception": {"type": "KeyboardInterrupt"}}), ("dead", {"signal": "SIGINT"})], None, "killed"),
        ([("failed", {"exception": {"type": "a.b.SignalException"}})], "slurm", "preempted"),
        ([("failed", {"exception": {"type": "KeyboardInterrupt", "message": ""}})], "slurm", "killed"),
        ([("dead", {"signal": "SIGTERM"}), ("failed", {"exception": _LOST_PEER})], "slurm", "preempted"),
        ([("dead", {"signal": "SIGKILL"}), ("failed", {"exception": _LOST_PEER})], None, "killed"),
        ([("dead", {}), ("failed", {"exception": _LOST_PEER})], None, "dead"),
        ([("failed", {"exception": _LOST_PEER}), ("finished", {"exit_code": 0})], None, "failed"),
        ([("failed", {"exit_code": "three"})], None, "failed"),
        ([("dead", {"signal": "SIGSEGV"}), ("dead", {"signal": "SIGTERM"})], None, "failed"),
        (
            [("dead", {"signal": "SIGKILL"}), ("failed", {"exception": {"type": "E"}, "exit_code": None})],
            None,
            "failed",
        ),
        ([("dead", {"lost": True}), ("dead", {"signal": "SIGKILL"})], None, "dead"),
        ([("dead", {"exit_code": 0})], None, "dead"),
    ],
)
def test_what_became_of_a_run_is_told_once_nobody_lives(
    build: DatabaseBuilder,
    cursor: duckdb.DuckDBPyConnection,
    store: Store,
    ends: list[tuple[str, dict[str, Any]]],
    scheduler: str | None,
    expected: str,
) -> None:
    run = build.run()
    for rank, (state, detail) in enumerate(ends):
        build.state(build.writer(run, rank, world_size=len(ends)), state, detail, since_s=50.0)
    with store.transaction() as connection:
        connection.execute("UPDATE writers SET identity = ?", [json.dumps({"scheduler": scheduler})])
    got = one(cursor)
    assert (got["state"], got["ended_at"]) == (expected, T0 + 50)
    assert queries.list_runs(cursor, state=expected)["total"] == 1


def test_only_the_newest_attempt_tells_the_state(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run(attempts=2)
    build.writer(run, state="failed", last_step=900)
    build.writer(run, attempt=2, state="running", last_step=5, last_s=70)
    got = one(cursor)
    assert (got["state"], got["attempt"], got["last_step"], got["last_seen"]) == ("running", 2, 5, T0 + 70)


def test_children_do_not_tell_the_state(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run()
    build.writer(run, state="finished")
    build.writer(run, role="child", state="dead")
    assert one(cursor)["state"] == "finished"


def test_the_last_entry_of_config_and_summary_counts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run()
    writer, other = build.writer(run), build.writer(run, 1)
    build.points(writer, "loss", [1.0])
    for value in (0.1, {"a": [1, None]}):
        build.entry("config", run, writer, "lr", value)
        build.entry("summary", run, writer, "loss", value)
    build.entry("config", run, other, "batch", 8)
    got = one(cursor)
    assert got["config"] == {"batch": 8, "lr": {"a": [1, None]}}
    assert got["summary"] == {"loss": {"a": [1, None]}}


# -- definitions and summaries ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"),
    [("train/loss", "train/loss"), ("train/acc", "train/*"), ("train/", "train/*"), ("val/acc", "*"), ("x", "*")],
)
def test_the_closest_definition_counts(key: str, name: str) -> None:
    names = ("*", "train/loss", "train/*")
    assert definition_of([Definition(name, None, None) for name in names], key).name == name
    assert definition_of([], key) == Definition(key, None, None)


@pytest.mark.parametrize(
    ("word", "column"), [(None, "last"), ("last", "last"), ("mean", "mean"), ("none", None), ("median", "last")]
)
def test_which_figure_a_summary_shows(word: str | None, column: str | None) -> None:
    assert summary_column(Definition("x", None, word)) == column


@pytest.mark.parametrize(
    ("word", "expected"), [(None, 4.0), ("last", 4.0), ("min", 1.0), ("max", 9.0), ("mean", 5.0), ("none", None)]
)
def test_a_summary_goes_over_ranks(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, word: str | None, expected: float | None
) -> None:
    """Mean of the ranks' lasts and means, least of their mins, greatest of their maxes."""
    run = build.run()
    build.points(build.writer(run, 0), "loss", [1.0, NAN, 9.0, 2.0])
    build.points(build.writer(run, 1), "loss", [5.0, 7.0, 6.0])
    build.define(run, "loss", summary="min")
    build.define(run, "loss", summary=word)
    got = one(cursor)["summary"]
    assert got == ({} if expected is None else {"loss": expected})


def test_a_key_without_a_finite_value_is_there(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    build.points(build.writer(build.run()), "loss", [NAN, math.inf])
    assert one(cursor)["summary"] == {"loss": None}
    key = keys(cursor)["loss"]
    assert (key["count"], key["last"], key["min"], key["max"], key["last_step"]) == (2, None, None, None, 1)


def test_only_the_newest_attempt_that_has_a_key_counts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run(attempts=2)
    first, second = build.writer(run), build.writer(run, attempt=2)
    build.points(first, "loss", [1.0] * 5)
    build.points(first, "old", [2.0])
    build.points(second, "loss", [7.0])
    assert one(cursor)["summary"] == {"loss": 7.0, "old": 2.0}
    assert keys(cursor)["loss"]["count"] == 1


# -- where figures come from ------------------------------------------------------------------------------


def figures(series: int, value: float) -> dict[str, Any]:
    """Columns of one series that has had this value alone."""
    stats = SeriesStats()
    stats.update(np.array([series], np.int32), np.array([3]), np.array([T0_NS]), np.array([value]))
    return stats.columns()


def test_a_running_runs_figures_come_from_memory(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    series = build.points(build.writer(build.run()), "loss", [1.0])
    assert one(cursor, live=figures(series, 42.0))["summary"] == {"loss": 42.0}
    assert keys(cursor, live=figures(series, 42.0))["loss"]["last"] == 42.0


def test_an_ended_runs_figures_come_from_the_table(
    build: DatabaseBuilder, store: Store, cursor: duckdb.DuckDBPyConnection
) -> None:
    series = build.points(build.writer(build.run()), "loss", [1.0])
    with store.transaction() as connection:
        connection.register("ended", figures(series, 42.0))
        connection.execute("INSERT INTO series_stats SELECT * FROM ended")
        connection.unregister("ended")
    for live in (None, SeriesStats().columns(), figures(series, 42.0)):
        assert one(cursor, live=live)["summary"] == {"loss": 42.0}
        assert keys(cursor, live=live)["loss"]["count"] == 1


def test_what_nobody_knows_is_computed(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    build.points(build.writer(build.run()), "loss", [3.0, NAN, 1.0, 2.0], steps=[1, 2, 3, 0])
    for live in (None, SeriesStats().columns()):
        key = keys(cursor, live=live)["loss"]
        assert (key["count"], key["last"], key["last_step"]) == (4, 2.0, 0)  # of the row that came last
        assert (key["min"], key["max"]) == (1.0, 3.0)


@pytest.mark.parametrize("stored", ["NULL", "'nan'::DOUBLE"])
def test_a_nan_may_be_the_last_value_however_it_is_stored(
    build: DatabaseBuilder, store: Store, cursor: duckdb.DuckDBPyConnection, stored: str
) -> None:
    run = build.run()
    series = build.points(build.writer(run), "loss", [1.0, 2.0, NAN])
    with store.transaction() as connection:
        connection.execute(f"UPDATE points SET value = {stored} WHERE isnan(value)")
    seeded = SeriesStats()
    seeded.seed(queries.computed_stats(cursor, [series]))
    for live in (None, seeded.columns()):
        key = keys(cursor, live=live)["loss"]
        assert (key["last"], key["count"], key["min"], key["max"]) == (None, 3, 1.0, 2.0)
    assert seeded.columns()["nonfinite"].tolist() == [1]
    (curve,) = queries.plain(
        queries.metrics(cursor, find_run(cursor, "run-1"), queries.CurveRequest(["loss"], buckets=2))
    )["series"]
    assert (curve["value"], curve["count"], curve["nonfinite"]) == ([1.5, None], [2, 0], [0, 1])


def test_after_a_restart_the_ranks_that_have_not_come_back_count_too(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run()
    back = build.points(build.writer(run, 0), "loss", [1.0])
    build.points(build.writer(run, 1), "loss", [3.0])
    key = keys(cursor, live=figures(back, 1.0))["loss"]
    assert (key["ranks"], key["last"], key["count"]) == (2, 2.0, 2)


def test_computed_figures_seed_the_memory(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    numbers = [
        build.points(writer, "a", [3.0, NAN, 1.0], steps=[5, 6, 7]),
        build.points(writer, "b", [NAN]),
    ]
    seeded = SeriesStats()
    seeded.seed(queries.computed_stats(cursor, numbers))
    direct = SeriesStats()
    for number, values, steps in ((numbers[0], [3.0, NAN, 1.0], [5, 6, 7]), (numbers[1], [NAN], [0])):
        count = len(values)
        times = T0_NS + np.arange(count) * 10**9
        direct.update(np.full(count, number, np.int32), np.array(steps), times, np.array(values))
    for name, column in direct.columns().items():
        np.testing.assert_array_equal(seeded.columns()[name], column, err_msg=name)


# -- ranks ------------------------------------------------------------------------------------------------


def test_ranks_with_their_ends_and_children(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run(attempts=2)
    build.writer(run, 0, state="finished")
    detail = {"exit_code": 1, "exception": {"type": "ValueError", "message": "no"}, "reason": "exception"}
    failed = build.writer(run, 0, attempt=2, world_size=3, host="h0", pid=7, last_step=12, last_s=30)
    build.writer(run, 0, attempt=2, role="child", pid=8)
    build.state(failed, "failed", detail, since_s=31)
    killed = build.writer(run, 2, attempt=2, world_size=3, last_s=5)
    build.state(killed, "dead", {"signal": "SIGKILL"}, since_s=6)
    first, missing, third = queries.list_ranks(cursor, find_run(cursor, "run-1"), last_seen={killed: T0_NS}.get)
    assert {name: first[name] for name in ("rank", "attempt", "host", "pid", "state", "last_step")} == {
        "rank": 0,
        "attempt": 2,
        "host": "h0",
        "pid": 7,
        "state": "failed",
        "last_step": 12,
    }
    assert {name: first[name] for name in detail} == detail
    assert (first["last_seen"], first["ended_at"], first["events"], first["dropped"]) == (T0 + 30, T0 + 31, 10, 0)
    assert [(child["pid"], child["state"]) for child in first["children"]] == [(8, "running")]
    assert (missing["rank"], missing["state"], missing["host"]) == (1, "expected", None)
    assert (third["signal"], third["state"], third["last_seen"]) == ("SIGKILL", "dead", T0 + 5)
    (old,) = queries.list_ranks(cursor, find_run(cursor, "run-1"), attempt=1)
    assert (old["attempt"], old["state"]) == (1, "finished")


def test_a_program_that_is_alone_and_has_started_the_ranks_is_not_rank_0(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run()
    ranks = [build.writer(run, rank, world_size=2, pid=10 + rank) for rank in range(2)]
    build.writer(run, 0, world_size=1, pid=9, state="failed")  # it was heard last
    found = queries.list_ranks(cursor, find_run(cursor, "run-1"))
    assert [(rank["pid"], rank["state"]) for rank in found] == [(10, "running"), (11, "running")]
    assert (one(cursor)["state"], one(cursor)["world_size"], len(ranks)) == ("running", 2, 2)


def test_of_several_writers_of_a_rank_the_newest_counts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    run = build.run()
    build.writer(run, pid=1, state="failed")
    build.writer(run, pid=2, state="running")
    (rank,) = queries.list_ranks(cursor, find_run(cursor, "run-1"))
    assert (rank["pid"], rank["state"]) == (2, "running")
    assert one(cursor)["state"] == "running"


# -- events and objects -----------------------------------------------------------------------------------


def test_events_in_order_from_either_end(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run, other = build.run("run-1"), build.run("run-2")
    writer = build.writer(run, 3, host="h")
    numbers = [build.event(run, writer, kind, {"n": n}) for n, kind in enumerate(("opened", "gap", "closed"))]
    build.event(other, build.writer(other), "opened")
    ref = find_run(cursor, "run-1")
    assert [event["event"] for event in queries.list_events(cursor, ref)] == numbers
    assert [event["event"] for event in queries.list_events(cursor, ref, limit=2)] == numbers[1:]
    assert [event["event"] for event in queries.list_events(cursor, ref, after=-1, limit=2)] == numbers[:2]
    assert [event["event"] for event in queries.list_events(cursor, ref, after=numbers[1])] == numbers[2:]
    (gap,) = queries.list_events(cursor, ref, kind="gap")
    assert (gap["rank"], gap["host"], gap["body"], gap["time"]) == (3, "h", {"n": 1}, T0)


def test_an_event_without_a_writer(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run()
    build.event(run, 99, "removed")
    (event,) = queries.list_events(cursor, find_run(cursor, "run-1"))
    assert (event["rank"], event["host"]) == (None, None)


def test_the_newest_objects_come_by_key_and_step(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    writer = build.writer(build.run())
    for step in range(3):
        build.object(writer, "text", f"t{step}", step=step, second=step)
    build.object(writer, "hist", {"_type": "histogram"}, second=9)
    ref = find_run(cursor, "run-1")
    assert [row["value"] for row in queries.list_objects(cursor, ref)] == [{"_type": "histogram"}, "t0", "t1", "t2"]
    assert [row["value"] for row in queries.list_objects(cursor, ref, key="text", limit=2)] == ["t1", "t2"]
    assert [row["step"] for row in queries.list_objects(cursor, ref, key="text", step_min=1, step_max=1)] == [1]
    assert queries.list_objects(cursor, ref, ranks=[5]) == []


@pytest.mark.parametrize("limit", [0, 10_001])
def test_limits_have_limits(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, limit: int) -> None:
    build.run()
    for ask in (queries.list_events, queries.list_objects):
        with pytest.raises(queries.BadQuery, match="1 to 10000"):
            ask(cursor, find_run(cursor, "run-1"), limit=limit)


def test_a_rank_that_claims_an_immense_world_is_listed_with_some_of_those_that_are_missing(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    build.writer(build.run("run-1"), MAX_WORLD_SIZE - 1, world_size=MAX_WORLD_SIZE)
    found = queries.list_ranks(cursor, find_run(cursor, "run-1"))
    assert len(found) == MAX_EXPECTED + 1
    assert [(row["rank"], row["state"]) for row in (found[0], found[-1])] == [
        (0, "expected"),
        (MAX_WORLD_SIZE - 1, "running"),
    ]
