"""The table `files`: what each run's files are called, and which content each of them is.

A content comes to its place in the same breath as the row that refers to it, and goes with the last one: with its
run, or when newer versions have taken its place. All of this happens in the one thread that writes into the database,
so that none of it comes between the two halves of another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from allranks_collector.files import FileStore
from allranks_collector.store import Store

if TYPE_CHECKING:
    import duckdb

# The columns' types, in the table's own order (schema.py).
_COLUMNS = ("INTEGER", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "BIGINT", "INTEGER", "VARCHAR")

# Of the named files: the rows whose content is not among the newest ones, and those whose content a later row has.
_OLD = """
    WITH named AS (
        SELECT DISTINCT unnest($runs::INTEGER[]) AS run, unnest($hosts::VARCHAR[]) AS host,
            unnest($names::VARCHAR[]) AS name),
    contents AS (
        SELECT files.rowid AS number, run, host, name, digest,
            max(files.rowid) OVER (PARTITION BY run, host, name, digest) AS newest
        FROM files JOIN named USING (run, host, name)),
    aged AS (
        SELECT number, digest, number < newest AS is_again,
            dense_rank() OVER (PARTITION BY run, host, name ORDER BY newest DESC) AS age
        FROM contents)
    SELECT number, digest FROM aged WHERE is_again OR age > $versions"""


@dataclass(frozen=True)
class FileInfo:
    """A file in one of its states, as its sender tells of it."""

    transfer: bytes
    run: str
    host: str
    name: str
    size: int
    modified_ns: int
    rank: int | None


@dataclass(frozen=True)
class Sealed:
    """A file that has come whole, and is durable; `digest` is its SHA-256 in hex."""

    file: FileInfo
    digest: str


@dataclass
class Recorded:
    """What became of sealed files.

    Attributes:
        stored: they are in their places, and listed.
        homeless: no run of this id is known.
        lost: what had come of them is not there any more.
    """

    stored: list[Sealed] = field(default_factory=list[Sealed])
    homeless: list[Sealed] = field(default_factory=list[Sealed])
    lost: list[Sealed] = field(default_factory=list[Sealed])


def record(store: Store, files: FileStore, sealed: Sequence[Sealed]) -> Recorded:
    """Puts sealed files into their places and lists them, and removes older versions. In the writing thread.

    Raises:
        StoreError: none of them is listed; try again.
        OSError: one could not be put into its place; none is listed.
    """
    done = Recorded()
    wanted = [entry.file.run for entry in sealed]
    with store.cursor() as cursor:
        runs: dict[str, int] = dict(
            cursor.execute("SELECT id, run FROM runs WHERE id IN (SELECT unnest(?::VARCHAR[]))", [wanted]).fetchall()
        )
    known = [entry for entry in sealed if entry.file.run in runs]
    done.homeless = [entry for entry in sealed if entry.file.run not in runs]
    missing = files.place({entry.file.transfer: entry.digest for entry in known})
    done.stored = [entry for entry in known if entry.file.transfer not in missing]
    done.lost = [entry for entry in known if entry.file.transfer in missing]
    if done.stored:
        for digest in _insert(store, runs, done.stored, versions=files.versions):
            files.remove(digest)
    return done


def _insert(store: Store, runs: Mapping[str, int], stored: Sequence[Sealed], *, versions: int) -> set[str]:
    """Lists files, and gives the contents that nobody refers to any more."""
    now_ns = time.time_ns()
    rows = [
        (
            *(runs[entry.file.run], entry.file.host, entry.file.name, entry.digest, entry.file.size),
            *(entry.file.modified_ns, now_ns, entry.file.rank, entry.file.transfer.hex()),
        )
        for entry in stored
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    values = ", ".join(f"unnest(?::{kind}[])" for kind in _COLUMNS)
    with store.transaction() as connection:
        connection.execute(f"INSERT INTO files SELECT {values}", columns)
        if not versions:
            return set()
        asked = {"runs": columns[0], "hosts": columns[1], "names": columns[2], "versions": versions}
        old = connection.execute(_OLD, asked).fetchall()
        if not old:
            return set()
        # Not by RETURNING: DuckDB 1.5 leaves out rows of this transaction there.
        numbers = [number for number, _ in old]
        connection.execute("DELETE FROM files WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [numbers])
        return _unreferenced(connection, {digest for _, digest in old})


def digest_of(store: Store, files: FileStore, transfer: bytes) -> str | None:
    """The digest of a transfer that is stored, and the newest of its file; or None. From any thread.

    A file that has gone back to what it was (a link that points elsewhere again) must be listed anew.

    Raises:
        StoreError: the database cannot be read.
    """
    with store.cursor() as cursor:
        found = cursor.execute(
            "SELECT run, host, name, max(rowid), arg_max(digest, rowid) FROM files WHERE transfer = ?"
            " GROUP BY run, host, name",
            [transfer.hex()],
        ).fetchall()
        for run, host, name, number, digest in found:
            newer = cursor.execute(
                "SELECT 1 FROM files WHERE run = ? AND host = ? AND name = ? AND rowid > ? LIMIT 1",
                [run, host, name, number],
            ).fetchall()
            if not newer and files.has(digest):
                return str(digest)
    return None


def remove_run(store: Store, files: FileStore, run: int) -> None:
    """Removes all that is stored of a run, and the contents that no other run refers to. In the writing thread.

    Raises:
        StoreError: nothing is removed.
    """
    with store.cursor() as cursor:
        digests = _digests(cursor.execute("SELECT DISTINCT digest FROM files WHERE run = ?", [run]).fetchall())
    store.remove_run(run)
    with store.cursor() as cursor:
        gone = _unreferenced(cursor, digests)
    for digest in gone:
        files.remove(digest)


def _unreferenced(cursor: duckdb.DuckDBPyConnection, digests: set[str]) -> set[str]:
    """Those of them that no file has."""
    if not digests:
        return digests
    kept = cursor.execute(
        "SELECT DISTINCT digest FROM files WHERE digest IN (SELECT unnest(?::VARCHAR[]))", [list(digests)]
    ).fetchall()
    return digests - _digests(kept)


def _digests(rows: Iterable[tuple[str]]) -> set[str]:
    return {digest for (digest,) in rows}
