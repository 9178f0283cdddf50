"""What hosts whose clocks are wrong have printed and logged: shown, and put in order, in the collector's clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from allranks_collector.queries import CurveRequest, LogRequest, export, find_run, list_logs, metrics
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    from pathlib import Path

    import duckdb

    from allranks_collector.store import Store

T0 = T0_NS / 1e9
OFF_S = 300.0


@pytest.fixture
def lines(store: Store, build: DatabaseBuilder) -> None:
    """Three ranks that have logged step 1 and printed, one after the other; each into a console of its own.

    The clock of rank 1 is five minutes fast. That of rank 2 is right; once a message of it was late.
    """
    run = build.run()
    clocks = {0: [0.001], 1: [-OFF_S + 7.0, -OFF_S], 2: [0.0, 20.0]}
    consoles: list[int] = []
    for rank, offsets in clocks.items():
        writer = build.writer(run, rank, world_size=3)
        console = build.writer(run, rank, role="console")
        consoles.append(console)
        fast_s = OFF_S if rank == 1 else 0.0
        build.points(writer, "loss", [1.0], steps=[rank], seconds=[rank + fast_s])
        build.line(console, f"of rank {rank}", second=rank + fast_s)
        with store.transaction() as connection:
            for offset_s in offsets:
                connection.execute("INSERT INTO clocks VALUES (?, ?)", [writer, round(offset_s * 1e9)])
            connection.execute(
                "UPDATE writers SET identity = ? WHERE writer = ?",
                [json.dumps({"parent": f"{writer:032x}"}), console],
            )
    build.open_line(consoles[2], "still printing", second=9.0)


def ask(cursor: duckdb.DuckDBPyConnection, **wanted: Any) -> list[tuple[str, float]]:
    answer = list_logs(cursor, find_run(cursor, "run-1"), LogRequest(**wanted))
    return [(line["text"], round(line["time"] - T0, 3)) for line in answer["lines"] if not line["open"]]


ALL = [("of rank 0", 0.0), ("of rank 1", 1.0), ("of rank 2", 2.0)]


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ALL),
        ({"total": True}, ALL),
        ({"after": "0"}, ALL),
        ({"since": 0}, ALL),
        ({"grep": "rank"}, ALL),
        ({"begin": T0 + 0.5, "end": T0 + 1.5}, ALL[1:2]),
        ({"at": 2, "limit": 1}, ALL[1:2]),
        ({"step": 1, "limit": 1}, ALL[1:2]),
        ({"limit": 2}, ALL[1:]),
    ],
    ids=str,
)
def test_lines_of_a_host_whose_clock_is_wrong_stand_where_they_were_printed(
    cursor: duckdb.DuckDBPyConnection, wanted: dict[str, Any], found: list[tuple[str, float]]
) -> None:
    assert ask(cursor, **wanted) == found


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize("buckets", [0, 1000])
def test_curves_by_time_begin_when_they_did(cursor: duckdb.DuckDBPyConnection, buckets: int) -> None:
    run = find_run(cursor, "run-1")
    for x in ("step", "time"):
        found = metrics(cursor, run, CurveRequest(None, x=x, buckets=buckets))["series"]
        assert {curve["rank"]: round(curve["time"][0] - T0, 3) for curve in found} == {0: 0.0, 1: 1.0, 2: 2.0}
    assert [round(float(curve["x"][0]), 3) for curve in found] == [0.0, 1.0, 2.0]


@pytest.mark.usefixtures("lines")
def test_exported_metrics_have_their_times_in_one_clock(cursor: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    export(cursor, find_run(cursor, "run-1"), "metrics", "jsonl", tmp_path / "metrics")
    rows = [json.loads(line) for line in (tmp_path / "metrics").read_text().splitlines()]
    assert {row["rank"]: round(row["time"] - T0, 3) for row in rows} == {0: 0.0, 1: 1.0, 2: 2.0}
