"""The ledger: what it knows by heart is what the database says, and no peer can fill memory through it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.writers import T0_NS, HandWriter, number

from allranks_bus import events
from allranks_bus.errors import ProtocolError
from allranks_bus.events import Kind
from allranks_collector import ledger as ledgers
from allranks_collector.ingest import Ingest
from allranks_collector.ledger import Ledger
from allranks_collector.store import Store


def test_a_series_has_one_number_for_each_key_and_kind(store: Store) -> None:
    ledger = Ledger(store)
    book = ledger.open(b"w" * 16, HandWriter().identity, T0_NS)
    asked = [("a", "metric"), ("b", "metric"), ("a", "system"), ("a", "metric")]
    assert [ledger.series(book, key, kind) for key, kind in asked] == [1, 2, 3, 1]


def test_a_writer_has_no_more_series_than_memory_allows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_SERIES_PER_WRITER", 2)
    ledger = Ledger(store)
    book = ledger.open(b"w" * 16, HandWriter().identity, T0_NS)
    assert ledger.define(book, 0, ["a", "b"])
    assert ledger.series(book, "c", "metric") is None
    assert not ledger.define(book, 1, ["a", "c"])
    assert 1 not in book.keysets


@pytest.mark.parametrize("name", ["project", "launch", "host"])
def test_what_is_kept_of_an_identity_is_bounded(store: Store, name: str) -> None:
    ledger = Ledger(store)
    with pytest.raises(ProtocolError, match=name):
        ledger.open(b"w" * 16, {**HandWriter().identity, name: "x" * 1025}, T0_NS)
    assert ledger.new.writers == []


def test_numbers_go_on_after_those_of_the_database(store: Store) -> None:
    writer = HandWriter()
    Ingest(store).commit([writer.batch([writer.open(), number(0)])])
    ledger = Ledger(store)
    book = ledger.open(b"w" * 16, HandWriter(run="other").identity, T0_NS)
    assert (book.run.run, book.writer, ledger.series(book, "i", "metric")) == (2, 2, 2)


def test_a_writer_is_read_as_it_was_stored(store: Store) -> None:
    writer = HandWriter(rank=1, world_size=2, role="child", pid=77, pid_start=88, boot_id="b", pid_ns=99)
    ingest = Ingest(store)
    ingest.commit([writer.batch([writer.open(), number(5)])])
    known = ingest.book(writer.name)
    ledger = Ledger(store)
    ledger.load([writer.name, b"unknown" + bytes(9)])
    assert list(ledger.writers) == [writer.name]
    assert ledger.writers[writer.name] == known


def _told(store: Store) -> list[Any]:
    with store.cursor() as cursor:
        return cursor.execute("SELECT project, name FROM runs").fetchall()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_rank_that_called_init_tells_of_the_run_what_others_only_implied(store: Store, restarted: bool) -> None:
    implied, telling, late = (
        HandWriter(rank + 1, rank=rank, world_size=3, project=project, name=f"{project}-name", **more)
        for rank, (project, more) in enumerate([("default", {"implied": True}), ("p", {}), ("other", {})])
    )
    ingest = Ingest(store)
    ingest.commit([implied.batch([implied.open(), number(0)])])
    assert _told(store) == [("default", "default-name")]
    ingest = Ingest(store) if restarted else ingest
    ingest.commit([telling.batch([telling.open(), number(0)])])
    ingest.commit([late.batch([late.open(), number(0)])])
    assert _told(store) == [("p", "p-name")]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_rank_knows_the_name_that_its_console_does_not(store: Store, restarted: bool) -> None:
    console = HandWriter(1, role="console", parent=bytes(16), implied=True)
    console.identity.pop("name", None)
    rank = HandWriter(2, name="of the logger", implied=True)
    ingest = Ingest(store)
    ingest.commit([console.batch([console.open()])])
    if restarted:
        ingest = Ingest(store)
    ingest.commit([rank.batch([rank.open(), number(0)])])
    assert [name for _, name in _told(store)] == ["of the logger"]


def test_a_rank_that_calls_init_after_it_has_logged_tells_it_then(store: Store) -> None:
    writer = HandWriter(project="default", implied=True)
    ingest = Ingest(store)
    ingest.commit([writer.batch([writer.open(), number(0)])])
    writer.identity.pop("implied")
    writer.identity["project"] = "p"
    ingest.commit([writer.batch([writer.open(), number(1)])])
    assert [project for project, _ in _told(store)] == ["p"]


def test_the_newest_name_that_the_program_chose_counts(store: Store) -> None:
    first, second = HandWriter(1, name="a"), HandWriter(2, rank=1, world_size=2, name="a")
    ingest = Ingest(store)
    ingest.commit([first.batch([first.open(), number(0)]), second.batch([second.open(), number(0)])])
    for writer, name, told_ns in ((second, "c", 30), (first, "b", 20)):  # b was chosen before, and comes later
        renamed = events.pack(Kind.OPEN, told_ns, {**writer.identity, "name": name, "told": told_ns})
        ingest.commit([writer.batch([renamed])])
    ingest.commit([first.batch([first.open(), number(1)])])  # a new segment of its spool, as it began
    assert [name for _, name in _told(store)] == ["c"]
