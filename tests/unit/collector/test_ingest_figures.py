"""What the ingest keeps of numbers that are not finite, and of figures over a restart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.support.writers import T0_NS, HandWriter

from allranks_bus import events
from allranks_bus.events import Kind
from allranks_collector.ingest import Ingest
from allranks_collector.store import Store


@pytest.mark.parametrize("count", [1, 40], ids=["one by one", "as a block"])
def test_numbers_that_are_not_finite_are_stored_as_they_are(store: Store, count: int) -> None:
    values = [math.nan, math.inf, -math.inf, 1.5]
    keyset = events.pack(Kind.KEYSET, T0_NS, 0, ["a", "b", "c", "d"])
    records = [events.pack_metrics(T0_NS, step, 0, values) for step in range(count)]
    writer = HandWriter()
    Ingest(store).commit([writer.batch([writer.open(), keyset, *records])])
    with store.cursor() as cursor:
        rows = cursor.execute(
            "SELECT key, value FROM points JOIN series USING (series) ORDER BY step, key"
        ).fetchall()
    assert repr([value for _, value in rows]) == repr(values * count)


def test_the_figures_of_living_runs_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "allranks.duckdb"
    writer = HandWriter()
    with Store.open(path) as store:
        ingest = Ingest(store)
        keyset = events.pack(Kind.KEYSET, T0_NS, 0, ["loss"])
        records = [events.pack_metrics(T0_NS, step, 0, [float(value)]) for step, value in enumerate((3, 1, 2))]
        ingest.commit([writer.batch([writer.open(), keyset, *records])])
        before = ingest.stats.columns()
    with Store.open(path) as store:
        again = Ingest(store)
        assert len(again.stats.columns()["series"]) == 0
        again.preload([1])
        after = again.stats.columns()
    assert {name: column.tolist() for name, column in after.items()} == {
        name: column.tolist() for name, column in before.items()
    }
    assert after["last"].tolist() == [2.0]
