"""The store opens what is its own, names what is wrong in one line, and outlives a full disk."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pytest

from allranks_collector import schema
from allranks_collector.store import (
    DiskFull,
    NotADatabase,
    Store,
    StoreError,
    StoreLocked,
    StoreMissing,
    StoreOverloaded,
    explain,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "test.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path, memory_limit_mb=256) as store:
        yield store


def add_points(store: Store, rows: int, series: int = 1) -> None:
    noise = np.random.default_rng(7).random(rows)  # incompressible: the file has to grow
    with store.transaction() as connection:
        connection.register("noise", {"value": noise})
        connection.execute("INSERT INTO points SELECT ?, 0, 0, value FROM noise", [series])
        connection.unregister("noise")


def count(store: Store, table: str = "points") -> int:
    with store.cursor() as cursor:
        row = cursor.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


OPEN = """
import sys; from pathlib import Path; from allranks_collector.store import Store, StoreError
try: Store.open(Path(sys.argv[1]), read_only=len(sys.argv) > 2).close(); print("opened")
except StoreError as error: print(type(error).__name__, getattr(error, "pid", ""), error)
"""


def test_opening_makes_the_folder_and_the_schema(store: Store) -> None:
    with store.cursor() as cursor:
        assert schema.read_version(cursor) == schema.SCHEMA_VERSION


def test_the_instance_stays_the_same(path: Path) -> None:
    with Store.open(path) as first:
        instance = first.instance
    with Store.open(path) as second:
        assert second.instance == instance
    assert len(instance) == 16


def test_a_file_that_another_process_has_names_that_process(store: Store) -> None:
    result = run_python(OPEN, store.path)
    assert result.stdout.startswith(f"StoreLocked {os.getpid()} the database {store.path} is in use by process")


def test_reading_only_is_refused_too_while_a_collector_writes(store: Store) -> None:
    assert run_python(OPEN, store.path, "read-only").stdout.startswith("StoreLocked")


def test_something_else_than_a_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.duckdb"
    path.write_bytes(b"PNG, say" * 4096)
    with pytest.raises(NotADatabase, match=r"picture\.duckdb is not a DuckDB database"):
        Store.open(path)


def test_reading_where_nothing_was_stored(path: Path) -> None:
    path.parent.mkdir()
    with pytest.raises(StoreMissing, match="there is no database"):
        Store.open(path, read_only=True)


def test_a_folder_of_somebody_else_is_denied(tmp_path: Path) -> None:
    """Run as root or not: root gives its rights up in a process of its own."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    code = "import os, duckdb, allranks_collector.store\nif os.geteuid() == 0: os.seteuid(65534)\n" + OPEN
    tmp_path.chmod(0o755)
    result = run_python(code, closed / "x.duckdb")
    assert result.stdout.startswith("StoreDenied"), result.stdout + result.stderr


def test_a_database_that_is_too_new_is_refused_and_closed_again(path: Path) -> None:
    with Store.open(path) as store, store.transaction() as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'schema_version'")
    for _ in range(2):
        with pytest.raises(schema.SchemaTooNew):
            Store.open(path)
    assert "SchemaTooNew" in run_python(OPEN, path).stderr  # not locked by the attempts above


def test_what_a_killed_collector_had_committed_can_be_read(path: Path) -> None:
    code = """
import os, signal, sys; from pathlib import Path; from allranks_collector.store import Store
store = Store.open(Path(sys.argv[1]))
with store.transaction() as c: c.execute("INSERT INTO runs (run, id) VALUES (1, 'a')")
c.execute("BEGIN"); c.execute("INSERT INTO runs (run, id) VALUES (2, 'b')")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(code, path).returncode == -signal.SIGKILL
    with Store.open(path, read_only=True) as store, store.cursor() as cursor:
        assert cursor.execute("SELECT id FROM runs").fetchall() == [("a",)]


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    with contextlib.suppress(KeyError), store.transaction() as connection:
        connection.execute("INSERT INTO runs (run) VALUES (1)")
        raise KeyError
    assert count(store, "runs") == 0
    with store.transaction() as connection:
        connection.execute("INSERT INTO runs (run) VALUES (1)")
    assert count(store, "runs") == 1


def test_a_mistake_in_a_statement_is_no_store_error(store: Store) -> None:
    with pytest.raises(duckdb.CatalogException), store.cursor() as cursor:
        cursor.execute("SELECT * FROM nowhere")


def test_a_long_query_keeps_its_snapshot_while_commits_go_on(store: Store) -> None:
    add_points(store, 1000)
    with store.cursor() as cursor:
        cursor.execute("BEGIN TRANSACTION")
        before = cursor.execute("SELECT count(*) FROM points").fetchone()
        writer = threading.Thread(target=add_points, args=(store, 500))
        writer.start()
        writer.join(60)
        assert not writer.is_alive()
        assert cursor.execute("SELECT count(*) FROM points").fetchone() == before
    assert count(store) == 1500


@contextlib.contextmanager
def no_room_beyond(size_bytes: int) -> Generator[None]:
    """A full disk, as far as one file goes: writes beyond this size fail."""
    writes_bytecode = not sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a module that is compiled under the limit would be cut short for all others
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = not writes_bytecode


def test_a_full_disk_stores_nothing_and_the_same_transaction_works_later(store: Store) -> None:
    add_points(store, 1000)
    with no_room_beyond(100_000):
        for _ in range(2):
            with pytest.raises(DiskFull, match="no space left"):
                add_points(store, 100_000)
        assert count(store) == 1000  # queries go on
    add_points(store, 100_000)
    assert count(store) == 101_000


def test_a_checkpoint_on_a_full_disk_is_survived(store: Store) -> None:
    """DuckDB invalidates the whole database then: the next use opens it anew."""
    add_points(store, 100_000)
    with no_room_beyond(100_000), pytest.raises(DiskFull):
        store.checkpoint()
    assert count(store) == 100_000
    add_points(store, 10)
    store.checkpoint()
    assert count(store) == 100_010


def test_reopening_interrupts_the_queries_in_flight(store: Store) -> None:
    add_points(store, 20_000)
    started, ended = threading.Event(), threading.Event()

    def long_query() -> None:
        with contextlib.suppress(Exception), store.cursor() as cursor:
            started.set()
            cursor.execute("SELECT sum(a.value * b.value) FROM points a, points b").fetchone()
        ended.set()

    thread = threading.Thread(target=long_query)
    thread.start()
    assert started.wait(60)
    with no_room_beyond(100_000), pytest.raises(DiskFull):
        store.checkpoint()
    assert count(store) == 20_000
    assert ended.wait(60)
    thread.join(60)


def test_a_query_beyond_the_memory_limit_says_so(path: Path) -> None:
    error = duckdb.OutOfMemoryException("failed to allocate")
    assert isinstance(explain(error, path), StoreOverloaded)


def test_a_lock_without_a_known_owner(path: Path) -> None:
    error = explain(duckdb.IOException('Could not set lock on file "x": Resource unavailable'), path)
    assert isinstance(error, StoreLocked)
    assert error.pid is None


def test_removing_a_run_leaves_the_others(store: Store) -> None:
    with store.transaction() as connection:
        for run in (1, 2):
            connection.execute(f"INSERT INTO runs (run, id) VALUES ({run}, 'r{run}')")
            connection.execute(f"INSERT INTO attempts VALUES ({run}, 1, 'x', 0)")
            connection.execute(f"INSERT INTO writers (writer, run) VALUES ({run}0, {run})")
            connection.execute(f"INSERT INTO positions VALUES ({run}0, 1, 1, 1, 0)")
            connection.execute(f"INSERT INTO states VALUES ({run}0, 1, 'running', NULL)")
            connection.execute(f"INSERT INTO keysets VALUES ({run}0, 1, '[]')")
            connection.execute(f"INSERT INTO series VALUES ({run}00, {run}0, 'loss', 'metric')")
            connection.execute(f"INSERT INTO points VALUES ({run}00, 1, 1, 1.0)")
            connection.execute(f"INSERT INTO objects VALUES ({run}00, 1, 1, '\"t\"')")
            connection.execute(f"INSERT INTO series_stats (series) VALUES ({run}00)")
            connection.execute(f"INSERT INTO config VALUES ({run}, {run}0, 1, 'k', '1')")
            connection.execute(f"INSERT INTO summary VALUES ({run}, {run}0, 1, 'k', '1')")
            connection.execute(f"INSERT INTO definitions VALUES ({run}, 1, 'k', NULL, 'min')")
            connection.execute(f"INSERT INTO files (run, name) VALUES ({run}, 'best.pt')")
            connection.execute(f"INSERT INTO lines (writer, text) VALUES ({run}0, 'epoch 3')")
            connection.execute(f"INSERT INTO open_lines (writer, text) VALUES ({run}0, 'epoch')")
            connection.execute(f"INSERT INTO terminals (writer) VALUES ({run}0)")
            connection.execute(f"INSERT INTO clocks VALUES ({run}0, 1)")
            connection.execute(f"INSERT INTO sections (writer) VALUES ({run}0)")
            connection.execute(f"INSERT INTO surroundings VALUES ({run}0, 1, '{{}}')")
            connection.execute(f"INSERT INTO stacks (run) VALUES ({run})")
            connection.execute(f"INSERT INTO events VALUES (1, {run}, {run}0, 1, 'opened', '{{}}')")
    tables = {name for m in schema.MIGRATIONS for s in m.statements for name in [s.split()[2]]} - {"meta"}
    before = {table: count(store, table) for table in tables}
    store.remove_run(1)
    assert before == dict.fromkeys(tables, 2)
    assert {table: count(store, table) for table in tables} == dict.fromkeys(tables, 1)


def test_a_closed_store_says_so(path: Path) -> None:
    store = Store.open(path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="has been closed"), store.cursor():
        pass


def test_the_size_counts_the_wal(store: Store) -> None:
    before = store.size_bytes()
    add_points(store, 10_000)
    assert store.size_bytes() > before + 50_000
