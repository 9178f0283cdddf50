"""The schema comes up whole, once, and is never forced on a database that is not this version's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import duckdb
import pytest

from allranks_collector import schema

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    yield connection
    connection.close()


def tables(connection: duckdb.DuckDBPyConnection) -> set[str]:
    return {str(name) for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}


def test_versions_count_up_from_one() -> None:
    """`migrate` relies on the order, and on a last version that names the whole."""
    versions = [migration.version for migration in schema.MIGRATIONS]
    assert versions == list(range(1, len(versions) + 1))
    assert versions[-1] == schema.SCHEMA_VERSION


def test_a_new_database_gets_every_table(connection: duckdb.DuckDBPyConnection) -> None:
    schema.migrate(connection)
    assert tables(connection) == {
        *("meta", "runs", "attempts", "writers", "positions", "states", "keysets", "series", "points"),
        *("objects", "config", "summary", "definitions", "events", "series_stats", "files", "lines"),
        *("open_lines", "terminals", "clocks", "stacks", "sections", "surroundings"),
    }
    assert schema.read_version(connection) == schema.SCHEMA_VERSION


def test_the_instance_is_random_and_stays(connection: duckdb.DuckDBPyConnection) -> None:
    schema.migrate(connection)
    first = schema.read_meta(connection, "instance")
    schema.migrate(connection)
    assert first is not None
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert schema.read_meta(connection, "instance") == first
    with duckdb.connect() as other:
        schema.migrate(other)
        assert schema.read_meta(other, "instance") != first


def test_a_newer_schema_is_refused_and_untouched(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE meta (name VARCHAR, value VARCHAR)")
    connection.execute("INSERT INTO meta VALUES ('schema_version', '99'), ('instance', 'ab')")
    with pytest.raises(
        schema.SchemaTooNew, match=rf"version 99.*up to {schema.SCHEMA_VERSION}.*upgrade allranks"
    ) as caught:
        schema.migrate(connection)
    assert "\n" not in str(caught.value)
    assert tables(connection) == {"meta"}
    assert connection.execute("SELECT * FROM meta ORDER BY name").fetchall() == [
        ("instance", "ab"),
        ("schema_version", "99"),
    ]


def test_somebody_elses_tables_are_refused_and_untouched(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE customers (id INTEGER)")
    with pytest.raises(schema.ForeignDatabase, match="not allranks'"):
        schema.migrate(connection)
    assert tables(connection) == {"customers"}


def test_a_meta_table_without_our_version_is_foreign(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE meta (name VARCHAR, value VARCHAR)")
    with pytest.raises(schema.ForeignDatabase):
        schema.migrate(connection)


def test_a_migration_that_fails_leaves_nothing(
    connection: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = schema.Migration(1, (*schema.MIGRATIONS[0].statements, "CREATE TABLE runs (again INTEGER)"))
    monkeypatch.setattr(schema, "MIGRATIONS", (broken,))
    with pytest.raises(duckdb.CatalogException):
        schema.migrate(connection)
    assert tables(connection) == set()


@pytest.mark.parametrize(("version", "error"), [(99, schema.SchemaTooNew), (0, schema.SchemaTooOld)])
def test_reading_only_needs_exactly_this_version(
    connection: duckdb.DuckDBPyConnection, version: int, error: type[schema.SchemaError]
) -> None:
    schema.migrate(connection)
    schema.check(connection)
    connection.execute("UPDATE meta SET value = ? WHERE name = 'schema_version'", [str(version)])
    with pytest.raises(error):
        schema.check(connection)
