"""What the ingest tells the alerts: each own alert once, and of each series its first value that is not finite."""

from __future__ import annotations

import math

from tests.support.writers import T0_NS, HandWriter, number

from allranks_bus import events
from allranks_bus.events import Kind
from allranks_collector.ingest import Ingest
from allranks_collector.store import Store


def test_of_each_series_the_first_value_that_is_not_finite_is_told_and_no_other(store: Store) -> None:
    ingest, writer = Ingest(store), HandWriter()
    values = [1.0, math.inf, math.nan]
    done = ingest.commit(
        [writer.batch([writer.open(), *(number(at, value, "loss") for at, value in enumerate(values))])]
    )
    (bad,) = done.bad_values
    assert (bad.book.id, bad.key, bad.value, bad.step) == (writer.name, "loss", math.inf, 1)
    done = ingest.commit([writer.batch([number(3, math.nan, "loss"), number(4, math.nan, "grad")])])
    assert [(bad.key, bad.step) for bad in done.bad_values] == [("grad", 4)]


def test_a_figure_of_the_system_is_no_metric(store: Store) -> None:
    writer = HandWriter()
    system = events.pack(Kind.SYSTEM, T0_NS, 0, {"loss": math.nan})
    assert Ingest(store).commit([writer.batch([writer.open(), system])]).bad_values == []


def test_an_own_alert_is_told_once_however_often_it_is_sent(store: Store) -> None:
    ingest, writer = Ingest(store), HandWriter()
    said = {"title": "t", "text": "x", "level": "WARN"}
    batch = writer.batch([writer.open(), events.pack(Kind.ALERT, T0_NS + 5, said)])
    (alert,) = ingest.commit([batch]).alerts
    assert (alert[0].id, alert[1], alert[2]) == (writer.name, T0_NS + 5, said)
    assert ingest.commit([batch]).alerts == []
