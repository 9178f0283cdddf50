"""One DuckDB file, opened safely: one thread writes, any number of threads read beside it.

DuckDB's snapshots let a long query run while commits go on, as long as each thread has a cursor of its own.
What can go wrong with a file is told apart by what one does about it:

    AllranksError
    └── StoreError
        ├── StoreLocked      another process has the file            → ask that process, or stop it
        ├── StoreMissing     there is no file, and we only read      → nothing has been stored yet
        ├── StoreDenied      the file or folder may not be used      → correct the permissions
        ├── NotADatabase     the file is something else              → choose another path
        ├── DiskFull         nothing of the transaction is stored    → make room, and try again
        └── StoreOverloaded  a query needs more memory than allowed  → ask for less, or raise memory_limit_mb
"""

from __future__ import annotations

import contextlib
import re
import threading
from typing import TYPE_CHECKING

import duckdb

from allranks_bus.errors import AllranksError
from allranks_collector import schema

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from typing_extensions import Self

# A checkpoint holds commits up for as long as it writes: 0.1 s for a WAL of this size, 0.5 s for one of 256 MiB, with
# as much CPU in all. Until then the WAL's rows are kept in memory, and would be replayed at the next start.
CHECKPOINT_THRESHOLD_MB = 64
# What goes with a run: by its writers, and by its own number.
_OF_WRITERS = (
    *("series", "keysets", "positions", "states", "lines", "open_lines", "terminals"),
    *("clocks", "sections", "surroundings"),
)
_OF_RUNS = ("stacks", "files", "events", "config", "summary", "definitions", "writers", "attempts", "runs")
# How long queries in flight may hold up the reopening of a database that a full disk has invalidated.
REOPEN_WAIT_S = 10.0


class StoreError(AllranksError):
    """The database cannot be used."""


class StoreLocked(StoreError):
    """Another process has the database file open; `pid` names it where DuckDB knows."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.pid = pid
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"the database {path} is in use by {holder}: ask it over HTTP, or stop it first")


class StoreMissing(StoreError):
    """There is no database file to read."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no database at {path}: no collector has stored anything there yet")


class StoreDenied(StoreError):
    """The operating system does not let us use the file or its folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"no permission to use the database {path}: check the owner and mode of it and its folder")


class NotADatabase(StoreError):
    """The file is not a DuckDB database."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not a DuckDB database: move it away, or choose another path")


class DiskFull(StoreError):
    """There is no room for the transaction: nothing of it is stored."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"no space left on the disk of the database {path}: make room")


class StoreOverloaded(StoreError):
    """A query needs more memory than the database may use."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"the query needs more memory than the database {path} may use: "
            "ask for less of it, or raise memory_limit_mb"
        )


# DuckDB tells these apart in words alone; the words are held by tests against the real thing.
_KINDS: tuple[tuple[str, type[StoreMissing | StoreDenied | NotADatabase | DiskFull]], ...] = (
    ("No space left on device", DiskFull),
    ("Disk quota exceeded", DiskFull),
    ("File too large", DiskFull),  # a limit on file sizes (ulimit -f)
    ("not a valid DuckDB database", NotADatabase),
    ("database does not exist", StoreMissing),
    ("Permission denied", StoreDenied),
    ("Read-only file system", StoreDenied),
)


# After these DuckDB refuses every further statement until the database is opened anew.
_INVALIDATING = (duckdb.FatalException, duckdb.InternalException)


def explain(error: duckdb.Error, path: Path) -> StoreError | None:
    """The StoreError that `error` stands for, or None: then it is a mistake in a statement of ours."""
    text = str(error)
    if "Could not set lock on file" in text:
        pid = re.search(r"\(PID (\d+)\)", text)
        return StoreLocked(path, int(pid[1]) if pid else None)
    for words, kind in _KINDS:
        if words in text:
            return kind(path)
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreOverloaded(path)
    if isinstance(error, (duckdb.IOException, *_INVALIDATING)):
        return StoreError(f"the database {path} cannot be used: {text.splitlines()[0]}")
    return None


class Store:
    """The open database. `open` makes one, `close` ends it; both are for the thread that owns the service."""

    def __init__(self, path: Path, config: dict[str, str], *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self._config = config
        # Guards the connections, and counts who uses them: reopening needs all of them gone, because DuckDB
        # shares one database object between all connections of a process.
        self._gate = threading.Condition()
        self._in_use: set[duckdb.DuckDBPyConnection] = set()
        self._invalid = False
        self._closed = False
        self._root, self._write = self._connect()
        self.instance = bytes.fromhex(schema.read_meta(self._root, "instance") or "")

    @classmethod
    def open(cls, path: Path, *, memory_limit_mb: int = 1024, threads: int = 2, read_only: bool = False) -> Store:
        """Open the database at `path`; unless `read_only`, make it, or bring its schema up to date.

        Args:
            path: the file; beside it come `<path>.wal`, and `<path>.tmp/` for what memory cannot hold.
            memory_limit_mb: what DuckDB may use for data, in MiB; more is spilled to disk.
            threads: how many threads one query may use.
            read_only: several processes may read at once, and none while a collector writes.

        Raises:
            StoreError: one of the tree at the top of this module.
            SchemaError: the tables are of a newer version, or not ours.
        """
        config = {
            # Nothing is ever fetched from the network by the database.
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": f"{memory_limit_mb}MiB",
            "threads": str(threads),
            "temp_directory": f"{path}.tmp",
        }
        if not read_only:
            config["checkpoint_threshold"] = f"{CHECKPOINT_THRESHOLD_MB}MiB"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except PermissionError as error:
                raise StoreDenied(path) from error
            except OSError as error:
                raise StoreError(f"cannot make the folder {path.parent}: {error.strerror}") from error
        return cls(path, config, read_only=read_only)

    def _connect(self) -> tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]:
        try:
            root = duckdb.connect(str(self.path), read_only=self.read_only, config=dict(self._config))
        except duckdb.Error as error:
            raise explain(error, self.path) or error from error
        try:
            if self.read_only:
                schema.check(root)
            else:
                schema.migrate(root)
            return root, root.cursor()
        except BaseException:
            root.close()
            raise

    @contextlib.contextmanager
    def cursor(self) -> Generator[duckdb.DuckDBPyConnection]:
        """A cursor for reading in this thread, while others write.

        Raises:
            StoreError: in place of the DuckDB error, where it is the file's, the disk's or the memory's.
        """
        with self._gate:
            self._ready()
            cursor = self._root.cursor()
            self._in_use.add(cursor)
        try:
            yield cursor
        except duckdb.Error as error:
            raise self._failed(error) from error
        finally:
            cursor.close()
            self._release(cursor)

    @contextlib.contextmanager
    def transaction(self) -> Generator[duckdb.DuckDBPyConnection]:
        """The write connection in a transaction, committed at the end, or not at all. For the writing thread.

        Raises:
            DiskFull: nothing is stored; the same transaction may be tried again, also when the full disk has
                invalidated the database (a failed checkpoint does): it is opened anew by the next use.
            StoreError: as `cursor`.
        """
        with self._gate:
            self._ready()
            connection = self._write
            self._in_use.add(connection)
        try:
            connection.execute("BEGIN TRANSACTION")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            # A failed COMMIT has ended the transaction already, and then there is nothing to roll back.
            with contextlib.suppress(duckdb.Error):
                connection.execute("ROLLBACK")
            if isinstance(error, duckdb.Error):
                raise self._failed(error) from error
            raise
        finally:
            self._release(connection)

    def _release(self, connection: duckdb.DuckDBPyConnection) -> None:
        with self._gate:
            self._in_use.discard(connection)
            self._gate.notify_all()

    def _failed(self, error: duckdb.Error) -> Exception:
        if isinstance(error, _INVALIDATING):
            with self._gate:
                self._invalid = True
        return explain(error, self.path) or error

    def _ready(self) -> None:
        """With the gate held: raise if closed; open an invalidated database anew."""
        if self._closed:
            raise StoreError(f"the database {self.path} has been closed")
        if self._invalid:
            self._reopen()

    def _reopen(self) -> None:
        for cursor in self._in_use:
            cursor.interrupt()
        if not self._gate.wait_for(lambda: not self._in_use or not self._invalid, REOPEN_WAIT_S):
            raise StoreError(f"the database {self.path} waits for its queries to end before it can reopen")
        if self._invalid:  # else another thread was faster
            self._write.close()
            self._root.close()
            self._root, self._write = self._connect()
            self._invalid = False

    def remove_run(self, run: int) -> None:
        """Delete all rows of the run with this number, in one transaction of its own, from any thread.

        A writer of the run that is still alive goes on writing: the ingest must have forgotten it before.
        """
        with self.cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION")
            for table in ("points", "objects", "series_stats"):
                cursor.execute(
                    f"DELETE FROM {table} WHERE series IN"
                    " (SELECT series FROM series JOIN writers USING (writer) WHERE run = $run)",
                    {"run": run},
                )
            for table in _OF_WRITERS:
                cursor.execute(
                    f"DELETE FROM {table} WHERE writer IN (SELECT writer FROM writers WHERE run = $run)",
                    {"run": run},
                )
            for table in _OF_RUNS:
                cursor.execute(f"DELETE FROM {table} WHERE run = $run", {"run": run})
            cursor.execute("COMMIT")

    def checkpoint(self) -> None:
        """Write the WAL's content into the file. In the writing thread, or when it is quiet."""
        try:
            self._write.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise self._failed(error) from error

    def size_bytes(self) -> int:
        """What the file and its WAL take on disk."""
        total = 0
        for path in (self.path, self.path.with_name(self.path.name + ".wal")):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Close the database, which checkpoints it. Queries in flight are interrupted; twice is fine."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            for cursor in self._in_use:
                cursor.interrupt()
            self._gate.wait_for(lambda: not self._in_use, REOPEN_WAIT_S)
            self._write.close()
            self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
