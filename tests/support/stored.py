"""What a collector has stored, read from its database once it has ended."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
from tests.support.training import Rank


@dataclass(frozen=True)
class Counter:
    """The points of the key `i` of one writer, in the order in which they were stored."""

    run: str
    attempt: int
    rank: int
    role: str
    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    @property
    def is_unbroken(self) -> bool:
        """True where it counts 0, 1, 2 … with none left out, none twice and none out of order."""
        count = np.arange(len(self.steps))
        return bool(np.array_equal(self.steps, count) and np.array_equal(self.values, count))


@dataclass(frozen=True)
class Writer:
    """One process of a run.

    Attributes:
        state, detail: its last; None where it has never had any.
        parent: the id of the writer that it came from, in hex; None for a rank.
    """

    id: str
    attempt: int
    rank: int
    world_size: int
    role: str
    pid: int
    state: str | None
    detail: Mapping[str, Any]
    parent: str | None


class Stored:
    """Questions to a database that nobody has open."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, list(parameters)).fetchall()

    def one(self, statement: str, *parameters: object) -> Any:
        """The value of a question that has one."""
        ((value,),) = self.rows(statement, *parameters)
        return value

    def runs(self) -> list[str]:
        """The ids of all runs, in the order in which they came up."""
        return [run for (run,) in self.rows("SELECT id FROM runs ORDER BY run")]

    def writers(self, run: str) -> list[Writer]:
        """All processes that have logged to a run, ranks first; what is kept of their consoles is not among them."""
        rows = self.rows(
            "SELECT w.id, w.attempt, w.rank, w.world_size, w.role, w.pid, s.state, s.detail,"
            " json_extract_string(w.identity, '$.parent') AS parent"
            " FROM writers w JOIN runs r USING (run)"
            " LEFT JOIN (SELECT writer, last(state ORDER BY rowid) AS state, last(detail ORDER BY rowid) AS detail"
            " FROM states GROUP BY writer) s USING (writer)"
            " WHERE r.id = ? AND w.role IN ('rank', 'child') ORDER BY w.role DESC, w.attempt, w.rank, w.writer",
            run,
        )
        return [
            Writer(id, attempt, rank, world_size, role, pid, state, json.loads(detail or "{}"), parent)
            for id, attempt, rank, world_size, role, pid, state, detail, parent in rows  # noqa: A001
        ]

    def values(self, key: str) -> dict[int, list[float]]:
        """The values of a metric by the pid of the process that logged them, in the order in which they were stored.

        Of all runs; processes that logged none of it are left out.
        """
        found: dict[int, list[float]] = {}
        for pid, value in self.rows(
            "SELECT w.pid, p.value FROM points p JOIN series s USING (series) JOIN writers w USING (writer)"
            " WHERE s.key = ? AND s.kind = 'metric' ORDER BY p.rowid",
            key,
        ):
            found.setdefault(pid, []).append(value)
        return found

    def lines(self, run: str, stream: str = "stdout") -> dict[int, list[str]]:
        """What each rank of a run has printed, in order; the line that has not ended comes last."""
        found: dict[int, list[str]] = {}
        of_run = "JOIN writers w USING (writer) JOIN runs r USING (run) WHERE r.id = ? AND stream = ?"
        number = {"stdout": 1, "stderr": 2}[stream]
        ended = self.rows(f"SELECT time_ns, number, w.rank, text FROM lines {of_run}", run, number)
        opened = self.rows(f"SELECT time_ns, line, w.rank, text FROM open_lines {of_run} AND text <> ''", run, number)
        ended += [(2**63, 2**63 + line, rank, text) for _, line, rank, text in opened]
        for _, _, rank, text in sorted(ended):
            found.setdefault(rank, []).append(text)
        return found

    def counters(self, run: str) -> list[Counter]:
        """The counters of all writers of a run that have logged any."""
        return [
            Counter(run, attempt, rank, role, *self._points(series))
            for attempt, rank, role, series in self.rows(
                "SELECT w.attempt, w.rank, w.role, s.series FROM series s JOIN writers w USING (writer)"
                " JOIN runs r USING (run) WHERE r.id = ? AND s.key = 'i' AND s.kind = 'metric' ORDER BY s.series",
                run,
            )
        ]

    def events(self, kind: str) -> int:
        """How many events of this kind there are, of any run."""
        return int(self.one("SELECT count(*) FROM events WHERE kind = ?", kind))

    def states(self, run: str, rank: int) -> list[str]:
        """All states that a rank has been in, in order."""
        rows = self.rows(
            "SELECT s.state FROM states s JOIN writers w USING (writer) JOIN runs r USING (run)"
            " WHERE r.id = ? AND w.rank = ? AND w.role = 'rank' ORDER BY s.rowid",
            *(run, rank),
        )
        return [state for (state,) in rows]

    def _points(self, series: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        columns = self._connection.execute(
            "SELECT step, value FROM points WHERE series = ? ORDER BY rowid", [series]
        ).fetchnumpy()
        return np.asarray(columns["step"], np.int64), np.asarray(columns["value"], np.float64)


@contextmanager
def stored_in(database: Path) -> Generator[Stored]:
    """What is in `database`, which no collector has open."""
    with duckdb.connect(str(database), read_only=True) as connection:
        yield Stored(connection)


def assert_all_stored(database: Path, run: str, ranks: Iterable[Rank]) -> None:
    """Every event whose log() returned is stored, once and in order; of each rank at most one more."""
    with stored_in(database) as stored:
        counters = {counter.rank: counter for counter in stored.counters(run) if counter.role == "rank"}
    for rank in ranks:
        counter = counters[rank.rank]
        assert counter.is_unbroken, f"rank {rank.rank}: {counter}"
        assert len(counter.steps) - rank.returned in (0, 1), f"rank {rank.rank}: {rank.returned} returned"
