"""The tables of the collector's database, and the way from any older version of them to this one.

A migration is a version and its statements; a database without any is version 0. Later versions are added to
`MIGRATIONS` and never edited afterwards: a database in the field has been through just these statements.

No table has an index or a key: an index slows every append down, and the ingest, the only writer, keeps
numbers unique itself. In the small tables marked append-only the last row wins.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allranks_bus.errors import AllranksError

if TYPE_CHECKING:
    import duckdb


class SchemaError(AllranksError):
    """The tables in the database are not ones that this version can work with."""


class SchemaTooNew(SchemaError):
    """A newer allranks has written this database."""

    def __init__(self, found: int, known: int = 0) -> None:
        self.found = found
        self.known = known or SCHEMA_VERSION
        super().__init__(
            f"the database has schema version {found}, and this allranks knows versions up to {self.known}: "
            "upgrade allranks, or choose another database"
        )


class SchemaTooOld(SchemaError):
    """An older allranks has written this database, and it is open for reading only."""

    def __init__(self, found: int) -> None:
        self.found = found
        super().__init__(
            f"the database has schema version {found}, and this allranks reads version {SCHEMA_VERSION}: "
            "start a collector on it once, which upgrades it"
        )


class ForeignDatabase(SchemaError):
    """A DuckDB file with tables in it that are not ours."""

    def __init__(self) -> None:
        super().__init__("the database holds tables that are not allranks': choose another file")


@dataclass(frozen=True)
class Migration:
    """The statements that bring a database from `version - 1` to `version`."""

    version: int
    statements: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        (
            "CREATE TABLE meta (name VARCHAR, value VARCHAR)",
            # -- what trains ------------------------------------------------------------------------------
            """CREATE TABLE runs (
                run INTEGER, id VARCHAR, project VARCHAR, group_name VARCHAR, name VARCHAR, notes VARCHAR,
                tags VARCHAR,            -- json list
                created_ns BIGINT)""",
            "CREATE TABLE attempts (run INTEGER, attempt INTEGER, launch VARCHAR, started_ns BIGINT)",
            """CREATE TABLE writers (
                writer INTEGER,
                id VARCHAR,              -- 32 hex digits
                run INTEGER, attempt INTEGER, rank INTEGER, local_rank INTEGER, world_size INTEGER,
                role VARCHAR,            -- rank | child | console
                host VARCHAR, pid BIGINT,
                identity VARCHAR,        -- json of the whole OPEN map
                opened_ns BIGINT)""",
            # One row per writer, moved in the transaction that stores the records.
            """CREATE TABLE positions (
                writer INTEGER, next_seq BIGINT,
                last_step BIGINT,        -- null before the first
                last_ns BIGINT, dropped BIGINT)""",
            # Append-only.
            """CREATE TABLE states (
                writer INTEGER, since_ns BIGINT, state VARCHAR,
                detail VARCHAR           -- json: exit_code, signal, reason, exception
                )""",
            # -- what it says -----------------------------------------------------------------------------
            """CREATE TABLE keysets (
                writer INTEGER, keyset BIGINT,
                names VARCHAR            -- json list
                )""",
            """CREATE TABLE series (
                series INTEGER, writer INTEGER, key VARCHAR,
                kind VARCHAR             -- metric | system | object
                )""",
            # The large one: 10^9 rows. `series` is its only way to writer, rank, attempt and run.
            "CREATE TABLE points (series INTEGER, step BIGINT, time_ns BIGINT, value DOUBLE)",
            """CREATE TABLE objects (
                series INTEGER, step BIGINT, time_ns BIGINT,
                body VARCHAR             -- json: a string, or an object with _type
                )""",
            # Append-only, all three: the last row of a (run, key) or (run, name) wins.
            "CREATE TABLE config (run INTEGER, writer INTEGER, time_ns BIGINT, key VARCHAR, value VARCHAR)",
            "CREATE TABLE summary (run INTEGER, writer INTEGER, time_ns BIGINT, key VARCHAR, value VARCHAR)",
            """CREATE TABLE definitions (
                run INTEGER, time_ns BIGINT, name VARCHAR, step_metric VARCHAR, summary VARCHAR)""",
            """CREATE TABLE events (
                event BIGINT, run INTEGER, writer INTEGER, time_ns BIGINT, kind VARCHAR,
                body VARCHAR             -- json
                )""",
            # Rows of ended runs only: a running one's figures are computed.
            """CREATE TABLE series_stats (
                series INTEGER, count BIGINT, last DOUBLE, last_step BIGINT, last_ns BIGINT,
                min DOUBLE, max DOUBLE, sum DOUBLE,  -- of the finite values
                nonfinite BIGINT         -- rows of `count` that are not finite
                )""",
        ),
    ),
    Migration(
        2,
        (
            # Append-only: the last row of a (run, host, name) wins. The content lies in a folder, by its digest.
            """CREATE TABLE files (
                run INTEGER, host VARCHAR, name VARCHAR,
                digest VARCHAR,          -- sha256, 64 hex digits
                size BIGINT, modified_ns BIGINT, stored_ns BIGINT,
                rank INTEGER,            -- null: nobody's in particular
                transfer VARCHAR         -- 32 hex digits: offered again, it is not sent again
                )""",
            # -- what it prints ---------------------------------------------------------------------------
            """CREATE TABLE lines (
                number BIGINT,           -- in the order of arrival, over all runs
                writer INTEGER,
                stream UTINYINT,         -- 1 stdout, 2 stderr; 0 a note of ours on what was not kept
                line BIGINT, time_ns BIGINT, text VARCHAR)""",
            # The lines that may still change: the one that has not ended, and what the cursor may go up to. Moved in
            # the transaction that stores lines.
            "CREATE TABLE open_lines (writer INTEGER, stream UTINYINT, line BIGINT, time_ns BIGINT, text VARCHAR)",
            # One row per (writer, stream): what a collector that starts again needs to go on with their lines.
            "CREATE TABLE terminals (writer INTEGER, stream UTINYINT, state BLOB)",
            # -- what its time goes to --------------------------------------------------------------------
            # One row per section and about a second of a writer's time, in which these steps (inclusive) were taken.
            """CREATE TABLE sections (
                writer INTEGER, time_ns BIGINT, from_step BIGINT, to_step BIGINT, seconds DOUBLE,
                section VARCHAR, count BIGINT,
                spent DOUBLE,            -- seconds, without those of sections within it
                longest DOUBLE)""",
            # -- health -----------------------------------------------------------------------------------
            # Append-only: the collector's clock minus the writer's.
            "CREATE TABLE clocks (writer INTEGER, offset_ns BIGINT)",
            # Append-only: what each rank said of what surrounds it; json.
            "CREATE TABLE surroundings (writer INTEGER, time_ns BIGINT, body VARCHAR)",
            # Append-only: what each rank answered, each time that a run was asked where it stands.
            """CREATE TABLE stacks (
                run INTEGER, writer INTEGER, rank INTEGER,
                token VARCHAR,           -- of the asking, 32 hex digits; the largest is the newest
                time_ns BIGINT,          -- collector's clock
                how VARCHAR,             -- asked | signal | none
                answer VARCHAR           -- json: threads, or the reason why there are none
                )""",
        ),
    ),
)

SCHEMA_VERSION = MIGRATIONS[-1].version


def read_version(connection: duckdb.DuckDBPyConnection) -> int:
    """The schema version of the database; 0 for an empty one.

    Raises:
        ForeignDatabase: there are tables, and `meta` with its schema_version is not among them.
    """
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return 0
    if "meta" not in tables:
        raise ForeignDatabase
    value = read_meta(connection, "schema_version")
    if value is None or not value.isdecimal():
        raise ForeignDatabase
    return int(value)


def read_meta(connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """The value of one row of `meta`, or None."""
    # All of the answer and not `fetchone`: a result that is not read to its end keeps its transaction open, and while
    # there is one that may still see old versions of rows, DuckDB makes no checkpoint: the WAL would grow for ever.
    rows = connection.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchall()
    return str(rows[0][0]) if rows else None


def check(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise unless the database has exactly this schema version; changes nothing (for reading only)."""
    found = read_version(connection)
    if found > SCHEMA_VERSION:
        raise SchemaTooNew(found)
    if found < SCHEMA_VERSION:
        raise SchemaTooOld(found)


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring the database to `SCHEMA_VERSION` in one transaction: all of it, or nothing.

    A new database gets its `instance`, 32 random hex digits, which names this life of it on the wire.

    Raises:
        SchemaTooNew: a newer allranks has written it. It is left as it is.
        ForeignDatabase: it has tables that are not ours. It is left as it is.
    """
    found = read_version(connection)
    if found > SCHEMA_VERSION:
        raise SchemaTooNew(found)
    if found == SCHEMA_VERSION:
        return
    connection.execute("BEGIN TRANSACTION")
    try:
        for migration in MIGRATIONS:
            if migration.version > found:
                for statement in migration.statements:
                    connection.execute(statement)
        if found == 0:
            connection.execute("INSERT INTO meta VALUES ('instance', ?)", [secrets.token_hex(16)])
        connection.execute("DELETE FROM meta WHERE name = 'schema_version'")
        connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", [str(SCHEMA_VERSION)])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
