"""Files: what a run has sent, by host and name. Their contents lie beside the database (files.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allranks_collector.queries.runs import seconds
from allranks_collector.queries.select import QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from allranks_collector.queries.select import RunRef

# The newest row of each file, and how many contents of it are kept.
_NEWEST = """
    SELECT host, name, rank, size, digest, modified_ns, stored_ns,
        count(DISTINCT digest) OVER (PARTITION BY host, name) AS versions
    FROM files WHERE run = $run QUALIFY rowid = max(rowid) OVER (PARTITION BY host, name) ORDER BY name, host"""


class FileNotStored(QueryError):
    """The run has no such file."""

    def __init__(self, run: str, name: str) -> None:
        super().__init__(f"the run {run} has no file {name!r}")


class FileAmbiguous(QueryError):
    """Several hosts have files of this name, with different contents."""

    def __init__(self, name: str, hosts: Sequence[str]) -> None:
        listed = ", ".join(hosts[:5]) + (", …" if len(hosts) > 5 else "")
        super().__init__(f"{len(hosts)} hosts have a file {name!r}: say which host is meant ({listed})")


def list_files(cursor: duckdb.DuckDBPyConnection, run: RunRef) -> list[dict[str, Any]]:
    """The newest version of each file of the run, by name and host."""
    rows = cursor.execute(_NEWEST, {"run": run.run}).fetchall()
    return [
        {
            "name": name,
            "host": host,
            "rank": rank,
            "size": size,
            "digest": digest,
            "modified": seconds(modified_ns),
            "stored": seconds(stored_ns),
            "versions": versions,
        }
        for host, name, rank, size, digest, modified_ns, stored_ns, versions in rows
    ]


def find_file(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, name: str, *, host: str | None = None, digest: str | None = None
) -> dict[str, Any]:
    """One file of the run, as in the list: its newest version, or, with `digest`, that one.

    Raises:
        FileNotStored: the run has none of this name (of this host, with this digest).
        FileAmbiguous: several hosts have one, with different contents.
    """
    found = [file for file in list_files(cursor, run) if file["name"] == name and host in (None, file["host"])]
    if digest is not None:
        found = _with_digest(cursor, run, found, digest)
    if not found:
        raise FileNotStored(run.id, name)
    if len({file["digest"] for file in found}) > 1:
        raise FileAmbiguous(name, [file["host"] for file in found])
    return found[0]


def _with_digest(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, files: Sequence[dict[str, Any]], digest: str
) -> list[dict[str, Any]]:
    rows = cursor.execute(
        "SELECT host, name, size, modified_ns, stored_ns FROM files WHERE run = ? AND digest = ? ORDER BY rowid",
        [run.run, digest],
    ).fetchall()
    versions = {
        (host, name): {"digest": digest, "size": size, "modified": seconds(modified), "stored": seconds(stored)}
        for host, name, size, modified, stored in rows
    }
    return [
        {**file, **versions[file["host"], file["name"]]} for file in files if (file["host"], file["name"]) in versions
    ]
