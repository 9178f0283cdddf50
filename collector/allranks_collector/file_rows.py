"""The table `files`: what each run's files are called, and which content each of them is.

A content comes to its place in the same breath as the row that refers to it, and goes with the last one. Both happen
in the one thread that writes into the database, so that neither comes between the two halves of the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from allranks_collector.files import FileStore
from allranks_collector.store import Store

# The columns' types, in the table's own order (schema.py).
_COLUMNS = ("INTEGER", "VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "BIGINT", "BIGINT", "INTEGER", "VARCHAR")


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
    """Puts sealed files into their places and lists them. In the writing thread.

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
        _insert(store, runs, done.stored)
    return done


def _insert(store: Store, runs: Mapping[str, int], stored: Sequence[Sealed]) -> None:
    now_ns = time.time_ns()
    rows = [
        (
            *(runs[entry.file.run], entry.file.host, entry.file.name, entry.digest, entry.file.size),
            *(entry.file.modified_ns, now_ns, entry.file.rank, entry.file.transfer.hex()),
        )
        for entry in stored
    ]
    values = ", ".join(f"unnest(?::{kind}[])" for kind in _COLUMNS)
    with store.transaction() as connection:
        connection.execute(f"INSERT INTO files SELECT {values}", [list(column) for column in zip(*rows, strict=True)])


def digest_of(store: Store, files: FileStore, transfer: bytes) -> str | None:
    """The digest of a transfer that is stored, or None. From any thread.

    Raises:
        StoreError: the database cannot be read.
    """
    with store.cursor() as cursor:
        rows = cursor.execute("SELECT digest FROM files WHERE transfer = ? LIMIT 1", [transfer.hex()]).fetchall()
    return next((digest for (digest,) in rows if files.has(digest)), None)


def remove_run(store: Store, files: FileStore, run: int) -> None:
    """Removes all that is stored of a run, and the contents that no other run refers to. In the writing thread.

    Raises:
        StoreError: nothing is removed.
    """
    with store.cursor() as cursor:
        digests = _digests(cursor.execute("SELECT DISTINCT digest FROM files WHERE run = ?", [run]).fetchall())
    store.remove_run(run)
    if not digests:
        return
    with store.cursor() as cursor:
        kept = cursor.execute(
            "SELECT DISTINCT digest FROM files WHERE digest IN (SELECT unnest(?::VARCHAR[]))", [list(digests)]
        ).fetchall()
    for digest in digests - _digests(kept):
        files.remove(digest)


def _digests(rows: Iterable[tuple[str]]) -> set[str]:
    return {digest for (digest,) in rows}
