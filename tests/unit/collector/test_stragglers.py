"""Stragglers: the rank that the others wait for is named with its section and cost, and chance names nobody."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.serving import asking

from allranks_collector.api import ApiContext, create_app
from allranks_collector.api import stragglers as models
from allranks_collector.cli.output import console
from allranks_collector.cli.stragglers import view
from allranks_collector.queries.select import find_run
from allranks_collector.queries.stragglers import list_stragglers
from allranks_collector.settings import Settings
from allranks_collector.store import Store
from allranks_collector.stragglers import UNMARKED, Work, is_wait, ranking
from allranks_collector.testing import T0_NS, DatabaseBuilder, StillLive


def _works(own: Mapping[int, Mapping[str, float]], stretches: int = 10, step_s: float = 1.0) -> Iterator[Work]:
    """Ranks that end each step together, after what the slowest has worked; the rest is waiting."""
    for stretch in range(stretches):
        for rank, spent in own.items():
            yield Work(rank, stretch, 10, 10 * step_s, {name: 10 * seconds for name, seconds in spent.items()})


def test_the_slow_rank_is_named_with_its_section_and_what_it_costs() -> None:
    own = {rank: {"data": 0.1, "forward": 0.3} for rank in range(8)} | {5: {"data": 0.35, "forward": 0.3}}
    found = ranking(_works(own))
    first = found.ranks[0]
    assert (first.rank, first.section, first.worst) == (5, "data", 0)
    assert first.lost_s == pytest.approx(25.0)
    assert found.lost_s == pytest.approx(25.0)
    assert found.seconds == pytest.approx(100.0)
    assert [found.is_slow(one) for one in found.ranks] == [True] + [False] * 7


def test_who_waits_longest_is_not_the_slow_one() -> None:
    own = {0: {"data": 0.1, "sync": 0.8}, 1: {"data": 0.1, "sync": 0.8}, 2: {"data": 0.8, "sync": 0.1}}
    found = ranking(_works(own))
    assert [one.rank for one in found.ranks if one.lost_s > 0] == [2]
    assert found.ranks[0].section == "data"


def test_what_is_not_marked_is_work_where_the_waiting_is_marked() -> None:
    own = {0: {"sync": 0.6}, 1: {"sync": 0.6}, 2: {"sync": 0.1}}
    (first, *_) = ranking(_works(own)).ranks
    assert (first.rank, first.section) == (2, UNMARKED)
    assert first.lost_s == pytest.approx(50.0)


def test_without_a_section_of_waiting_what_is_not_marked_tells_nothing() -> None:
    own = {0: {"data": 0.1}, 1: {"data": 0.1}, 2: {"data": 0.1}}
    assert all(one.lost_s == pytest.approx(0.0) for one in ranking(_works(own)).ranks)


def test_of_two_ranks_the_slower_one_is_compared_with_the_faster() -> None:
    found = ranking(_works({0: {"data": 0.1}, 1: {"data": 0.3}}))
    assert [(one.rank, round(one.lost_s)) for one in found.ranks] == [(1, 20), (0, 0)]


def test_what_one_rank_alone_does_for_all_is_its_cost() -> None:
    own = {rank: {"data": 0.1} for rank in range(4)} | {0: {"data": 0.1, "checkpoint": 0.5}}
    (first, *_) = ranking(_works(own)).ranks
    assert (first.rank, first.section, round(first.lost_s)) == (0, "checkpoint", 50)


def test_one_rank_alone_is_compared_with_nobody() -> None:
    found = ranking(_works({0: {"data": 0.5}}))
    assert (found.ranks, found.seconds, found.lost_s) == ((), 0.0, 0.0)


def test_the_stretch_that_cost_most_is_known() -> None:
    works = [
        Work(rank, stretch, 10, 10.0, {"data": 5.0 if (rank, stretch) == (1, 3) else 1.0})
        for stretch in range(6)
        for rank in range(3)
    ]
    (first, *_) = ranking(works).ranks
    assert (first.rank, first.worst, first.lost_s) == (1, 3, 4.0)


@given(st.integers(0, 10_000), st.integers(3, 32))
def test_by_chance_nobody_is_a_straggler(seed: int, ranks: int) -> None:
    chance = random.Random(seed)
    works = [
        Work(rank, stretch, 10, 10.0, {"data": chance.gauss(3.0, 0.2), "sync": chance.random()})
        for stretch in range(100)
        for rank in range(ranks)
    ]
    # What is not marked is the rest of the ten seconds here: as much by chance as the others.
    found = ranking([Work(w.rank, w.stretch, w.steps, w.seconds, {"data": w.spent["data"]}) for w in works])
    assert not any(found.is_slow(one) for one in found.ranks)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sync", True), ("train/all_reduce", True), ("Barrier", True), ("data", False), ("async", False)],
)
def test_which_sections_are_waiting(name: str, expected: bool) -> None:
    assert is_wait(name) is expected


def _tell(
    build: DatabaseBuilder, writer: int, rates: Mapping[str, float], seconds: int = 60, per_s: int = 10
) -> None:
    """Windows of a second, of so many steps each, with so many seconds a second in each section."""
    with build.store.transaction() as connection:
        for name, spent in rates.items():
            connection.execute(
                "INSERT INTO sections SELECT $1, $2 + second * 1_000_000_000, second * $3, second * $3 + $3 - 1, 1.0,"
                " $4, $3, $5, $5 / $3 FROM range($6) AS seconds (second)",
                [writer, T0_NS, per_s, name, spent, seconds],
            )


def _run(build: DatabaseBuilder, id_: str, hosts: Mapping[int, str], slow: Mapping[int, float], at: float) -> None:
    run = build.run(id_, created_s=at)
    for rank, host in hosts.items():
        writer = build.writer(run, rank, world_size=len(hosts), host=host)
        data = slow.get(rank, 0.2)
        _tell(build, writer, {"data": data, "sync": 0.6 - data})


_HOSTS = {0: "node-a", 1: "node-a", 2: "node-b", 3: "node-b"}


def test_a_run_is_ranked_from_what_is_stored(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    _run(build, "run-1", _HOSTS, {3: 0.5}, 0.0)
    found = list_stragglers(cursor, find_run(cursor, "run-1"))
    assert (found["attempt"], found["measured"]) == (1, 4)
    assert found["seconds"] == pytest.approx(60.0)
    (slow,) = [one for one in found["ranks"] if one["slow"]]
    assert (slow["rank"], slow["host"], slow["section"]) == (3, "node-b", "data")
    assert slow["lost_s"] == pytest.approx(18.0)
    assert slow["rank_hours"] == pytest.approx(4 * 18.0 / 3600)
    begin, end = slow["worst_steps"]
    assert 0 <= begin < end <= 599
    assert found["hosts"] == [{"host": "node-b", "lost_s": pytest.approx(18.0), "earlier": []}]


def test_hosts_that_were_slow_in_earlier_runs_are_listed(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection
) -> None:
    _run(build, "first", _HOSTS, {0: 0.5}, 0.0)
    _run(build, "second", _HOSTS, {1: 0.4}, 100.0)
    _run(build, "elsewhere", dict.fromkeys(range(4), "node-z"), {0: 0.5}, 200.0)
    _run(build, "now", _HOSTS, {}, 300.0)
    found = list_stragglers(cursor, find_run(cursor, "now"))
    assert not [one for one in found["ranks"] if one["slow"]]
    (host,) = found["hosts"]
    assert (host["host"], host["lost_s"]) == ("node-a", 0.0)
    assert [one["run"] for one in host["earlier"]] == ["second", "first"]
    text = _text(found)
    assert "node-a had slow ranks in 2 earlier runs too: second (12 s), first (18 s)." in text


def test_of_a_run_without_sections_nothing_is_said(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    run = build.run("bare")
    build.writer(run, 0)
    found = list_stragglers(cursor, find_run(cursor, "bare"))
    assert (found["measured"], found["ranks"], found["hosts"], found["lost_s"]) == (0, [], [], 0.0)
    assert "Nothing to compare" in _text(found)


def test_steps_of_many_seconds_are_compared_too(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    """Windows in which no step ended have the step before as their own."""
    run = build.run("slow steps")
    for rank in range(3):
        writer = build.writer(run, rank, world_size=3)
        with build.store.transaction() as connection:
            for step in range(20):
                for part in range(5):
                    spent = 0.9 if rank == 1 and part < 3 else 0.3 if part < 3 else 0.0
                    connection.execute(
                        "INSERT INTO sections VALUES (?, ?, ?, ?, 1.0, 'data', 1, ?, ?)",
                        [writer, T0_NS + (5 * step + part) * 10**9, step, step, spent, spent],
                    )
    found = list_stragglers(cursor, find_run(cursor, "slow steps"))
    (slow,) = [one for one in found["ranks"] if one["slow"]]
    assert slow["rank"] == 1
    assert slow["lost_s"] == pytest.approx(20 * 3 * 0.6)


def test_it_is_told_in_words(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection) -> None:
    _run(build, "run-1", _HOSTS, {3: 0.5}, 0.0)
    text = _text(list_stragglers(cursor, find_run(cursor, "run-1")))
    assert text.startswith("18.0 s of 60 s (30 %) went to waiting for the slowest: 0.02 rank-hours.")
    assert "node-b" in text
    assert "data" in text


def test_it_is_asked_for_over_http(store: Store, build: DatabaseBuilder, tmp_path: Path) -> None:
    _run(build, "run-1", _HOSTS, {3: 0.5}, 0.0)
    settings = Settings(tmp_path, tmp_path / "test.duckdb", tmp_path / "spool", tmp_path / "files")
    app = create_app(ApiContext(store, StillLive(), settings))
    with asking(app, "http://127.0.0.1:5570") as client:
        found = client.get("/api/runs/run-1/stragglers").json()
        refused = client.get("/api/runs/run-1/stragglers", params={"limit": 0})
    assert models.StragglersAnswer.model_validate(found).ranks[0].rank == 3
    assert refused.status_code == 400


def _text(found: Mapping[str, Any]) -> str:
    shown = console()
    with shown.capture() as captured:
        for part in view(found):
            shown.print(part)
    return captured.get()
